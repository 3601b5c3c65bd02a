"""What PostgreSQL itself asks for TX2's rows: the same rows by plain psycopg, nothing locked or checked."""

import time
from collections.abc import Sequence

import psutil

from bench.table import Figure
from common.core import messages as m
from common.db import Connection

ROUND_ROWS = 2_500

_PREPARE = (
    "CREATE TABLE bench_orders (LIKE orders INCLUDING ALL EXCLUDING GENERATED) WITH (fillfactor = 50)",
    "INSERT INTO bench_orders SELECT * FROM orders",
    "UPDATE bench_orders SET status = 1, live = true",
    "VACUUM FULL bench_orders",
    "CREATE TABLE bench_trades (LIKE trades INCLUDING ALL)",
    "CREATE TABLE bench_accounts (LIKE accounts INCLUDING ALL) WITH (fillfactor = 70)",
    "INSERT INTO bench_accounts SELECT * FROM accounts",
    "CHECKPOINT",
)
_COPY = "COPY bench_trades FROM STDIN (FORMAT BINARY)"
_TYPES = ("int4", "int8", "int4", "int8", "int8", "int8", "int8", "int2", *["int8"] * 6)
_ORDERS = """
UPDATE bench_orders o
SET status = w.status, live = w.status <= 3, filled_lots = w.filled_lots, held_atoms = w.held_atoms
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
    AS w (order_id, status, filled_lots, held_atoms)
WHERE o.order_id = w.order_id
"""
_ACCOUNTS = "UPDATE bench_accounts SET held_atoms = held_atoms + 1 WHERE user_id = ANY(%b)"


async def bare_limit(connection: Connection, settlements: Sequence[m.Settlement]) -> list[Figure]:
    """Trades by COPY, orders and accounts by one UPDATE each, and a commit, round by round."""
    for statement in _PREPARE:
        await connection.execute(statement)
    process = psutil.Process(connection.info.backend_pid)
    orders = sum(one.last_sequence + 1 - one.first_sequence for one in settlements)
    before, begin_s = process.cpu_times(), time.perf_counter()
    some: list[m.Settlement] = []
    rows = 0
    for settlement in settlements:
        some.append(settlement)
        rows += len(settlement.orders) + len(settlement.trades)
        if rows >= ROUND_ROWS or settlement is settlements[-1]:
            await _write(connection, some)
            some, rows = [], 0
    whole_s, after = time.perf_counter() - begin_s, process.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    return [
        Figure("limit: the same rows in PostgreSQL", used_s / orders * 1e6, "us/order"),
        Figure("limit: the same rows, one session", orders / whole_s, "/s"),
    ]


async def _write(connection: Connection, settlements: Sequence[m.Settlement]) -> None:
    states = list({state.order_id: state for one in settlements for state in one.orders}.values())
    users = sorted({state.user_id for state in states})
    async with connection.transaction():
        async with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.set_types(_TYPES)
            for one in settlements:
                for t in one.trades:
                    parties = t.maker_order_id, t.taker_order_id, t.maker_user_id, t.taker_user_id
                    place = t.market_id, t.trade_id, one.partition, t.sequence, one.time_us
                    amounts = t.price_ticks, t.qty_lots, int(t.taker_side)
                    await copy.write_row((*place, *amounts, *parties, t.maker_fee_atoms, t.taker_fee_atoms))
        columns: list[list[int]] = [
            [state.order_id for state in states],
            [int(state.status) for state in states],
            [state.filled_lots for state in states],
            [state.held_atoms for state in states],
        ]
        await connection.execute(_ORDERS, columns)
        await connection.execute(_ACCOUNTS, [users])
