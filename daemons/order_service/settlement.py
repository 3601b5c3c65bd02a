"""TX2: settles the batches right after the watermark, in one transaction (I6, I7, I9, I10).

`judge_all` looks at the batches in order and says what is to be done with each; `settle` does it in
four round trips: lease and watermark, orders and accounts, trades, everything else with the commit.

Does not promise: progress. A gap, a fork or a token of yesterday leaves everything as it was; the
settler acts on what `Outcome` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Histogram
from psycopg.rows import TupleRow

from common.core import messages as m
from common.core.errors import ExchangeError
from common.core.ledger import Posting, ledger_entries, postings
from common.core.sequencing import Verdict, judge
from common.db import Connection

MATCHING, SETTLEMENT = "matching", "settlement"
TRADES_KIND = 3
COPY_FROM_ROWS = 12

SETTLED = Counter("exchange_settled_commands_total", "Commands settled", ["partition"])
REFUSED = Counter("exchange_settlement_refusals_total", "Batches refused", ["partition", "cause"])
SECONDS = Histogram(
    "exchange_tx2_seconds",
    "Duration of one TX2",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2),
)

_FENCE = """
SELECT service, fencing_token FROM partition_leader_locks
WHERE service = ANY(%s) AND partition = %s ORDER BY service FOR KEY SHARE
"""
_WATERMARK = """
SELECT sequence, chain, settlements_offset, stopped FROM watermarks WHERE partition = %s FOR NO KEY UPDATE
"""
_LOCK_ORDERS = """
SELECT order_id, held_atoms FROM orders WHERE order_id = ANY(%s) ORDER BY order_id FOR NO KEY UPDATE
"""
_LOCK_ACCOUNTS = """
SELECT user_id, asset_id FROM accounts
WHERE (user_id, asset_id) IN (SELECT * FROM unnest(%s::bigint[], %s::int[]))
ORDER BY user_id, asset_id FOR NO KEY UPDATE
"""
_OPEN_ACCOUNTS = """
INSERT INTO accounts (user_id, asset_id) SELECT * FROM unnest(%s::bigint[], %s::int[]) ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""
_UPDATE_ORDERS = """
UPDATE orders o SET status = w.status, reason = w.reason, filled_lots = w.filled_lots,
    filled_quote_atoms = w.filled_quote_atoms, fee_atoms = w.fee_atoms, held_atoms = w.held_atoms,
    updated_us = w.updated_us
FROM unnest(%s::bigint[], %s::smallint[], %s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[],
            %s::bigint[], %s::bigint[])
    AS w (order_id, status, reason, filled_lots, filled_quote_atoms, fee_atoms, held_atoms, updated_us)
WHERE o.order_id = w.order_id
"""
_UPDATE_ACCOUNTS = """
UPDATE accounts a
SET available_atoms = a.available_atoms + w.available, held_atoms = a.held_atoms + w.held
FROM unnest(%s::bigint[], %s::int[], %s::bigint[], %s::bigint[]) AS w (user_id, asset_id, available, held)
WHERE a.user_id = w.user_id AND a.asset_id = w.asset_id
"""
_LEDGER = """
INSERT INTO ledger (kind, partition, sequence, user_id, asset_id, delta_atoms)
SELECT %s, %s, %s, * FROM unnest(%s::bigint[], %s::int[], %s::bigint[])
"""
_MARKETS = """
INSERT INTO market_states
    (market_id, partition, status, maker_fee_bps, taker_fee_bps, next_trade_id, last_price_ticks)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (market_id) DO UPDATE SET status = excluded.status, maker_fee_bps = excluded.maker_fee_bps,
    taker_fee_bps = excluded.taker_fee_bps, next_trade_id = excluded.next_trade_id,
    last_price_ticks = excluded.last_price_ticks
"""
_ADVANCE = """
UPDATE watermarks SET sequence = %s, chain = %s, time_us = %s, orders_offset = %s, settlements_offset = %s,
    engine_version = %s WHERE partition = %s
"""
_TRADE_COLUMNS = """
    market_id, trade_id, partition, sequence, time_us, price_ticks, qty_lots, taker_side, maker_order_id,
    taker_order_id, maker_user_id, taker_user_id, maker_fee_atoms, taker_fee_atoms
"""
_TRADE_TYPES = ("int4", "int8", "int4", "int8", "int8", "int8", "int8", "int2", *["int8"] * 6)
_COPY_TRADES = f"COPY trades ({_TRADE_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_INSERT_TRADE = f"INSERT INTO trades ({_TRADE_COLUMNS}) VALUES ({', '.join(['%s'] * len(_TRADE_TYPES))})"  # noqa: S608


class CannotSettle(ExchangeError):
    """A settlement contradicts what TX1 wrote: its partition must stop, nothing was changed."""

    code = "CANNOT_SETTLE"


@dataclass(slots=True)
class Delivery:
    """A settlement as it came: who sent it, and where it and its command batch lie in Kafka."""

    settlement: m.Settlement
    token: int
    offset: int
    orders_offset: int


@dataclass(slots=True)
class Outcome:
    """`told`: settled now or before, so its updates may be published. The rest stopped the round."""

    told: list[m.Settlement] = field(default_factory=list)
    fresh: list[Delivery] = field(default_factory=list)
    gap: bool = False
    fork: bool = False
    lease_lost: bool = False


class AccountsMissing(Exception):
    """Somebody receives an asset for the first time: open the accounts, then settle again."""

    def __init__(self, accounts: list[tuple[int, int]]) -> None:
        super().__init__(accounts)
        self.accounts = accounts


def judge_all(
    deliveries: Sequence[Delivery],
    *,
    partition: int,
    sequence: int,
    chain: bytes,
    matching_token: int,
) -> Outcome:
    """What to do with each batch, in the order of I7: settled already, token, gap, chain."""
    outcome = Outcome()
    for delivery in deliveries:
        batch = delivery.settlement
        verdict = judge(
            sequence, chain, batch.first_sequence, batch.last_sequence, batch.previous_chain, batch.chain
        )
        if verdict is Verdict.SEEN:
            outcome.told.append(batch)
        elif delivery.token != matching_token:
            REFUSED.labels(partition, "token").inc()
        elif verdict is Verdict.NEXT:
            outcome.fresh.append(delivery)
            outcome.told.append(batch)
            sequence, chain = batch.last_sequence, batch.chain
        else:
            outcome.gap, outcome.fork = verdict is Verdict.GAP, verdict is Verdict.FORK
            REFUSED.labels(partition, verdict.value).inc()
            break
    return outcome


async def settle(
    connection: Connection,
    deliveries: Sequence[Delivery],
    *,
    partition: int,
    settlement_token: int,
    told_offset: int,
    markets: Mapping[int, m.Market],
) -> Outcome:
    """Settle what may be settled of `deliveries`; `told_offset` is what has been published of them before.

    Raises CannotSettle, KeyError for an unknown market, and psycopg errors; nothing has changed then.
    """
    with SECONDS.time():
        try:
            return await _settle(connection, deliveries, partition, settlement_token, told_offset, markets)
        except AccountsMissing as missing:
            await connection.rollback()
            await connection.execute(_OPEN_ACCOUNTS, _columns(missing.accounts, 2))
            return await _settle(connection, deliveries, partition, settlement_token, told_offset, markets)


async def _settle(
    connection: Connection,
    deliveries: Sequence[Delivery],
    partition: int,
    settlement_token: int,
    told_offset: int,
    markets: Mapping[int, m.Market],
) -> Outcome:
    async with connection.pipeline():
        await connection.execute("BEGIN")
        fence = await connection.execute(_FENCE, [[MATCHING, SETTLEMENT], partition])
        watermark = await connection.execute(_WATERMARK, [partition])
    tokens: dict[str, int] = dict(await fence.fetchall())
    row = await watermark.fetchone()
    assert row is not None, f"partition {partition} does not exist"
    if tokens.get(SETTLEMENT) != settlement_token:
        REFUSED.labels(partition, "settler").inc()
        await connection.rollback()
        return Outcome(lease_lost=True)
    outcome = judge_all(
        deliveries,
        partition=partition,
        sequence=row[0],
        chain=row[1],
        matching_token=tokens.get(MATCHING, 0),
    )
    if outcome.fresh:
        await _write(connection, partition, outcome.fresh, told_offset, markets)
        SETTLED.labels(partition).inc(outcome.fresh[-1].settlement.last_sequence - row[0])
    else:
        await connection.rollback()
    return outcome


async def _write(
    connection: Connection,
    partition: int,
    fresh: Sequence[Delivery],
    told_offset: int,
    markets: Mapping[int, m.Market],
) -> None:
    settlements = [delivery.settlement for delivery in fresh]
    last = fresh[-1]
    orders = _last_states(settlements)
    moves = _sum_postings(settlements, markets)
    await _lock(connection, settlements, orders, moves, markets)
    trades = [row for batch in settlements for row in _trade_rows(batch)]
    if len(trades) >= COPY_FROM_ROWS:
        async with connection.cursor() as cursor, cursor.copy(_COPY_TRADES) as copy:
            copy.set_types(_TRADE_TYPES)
            for row in trades:
                await copy.write_row(row)
        trades = []
    async with connection.pipeline():
        for row in trades:
            await connection.execute(_INSERT_TRADE, row)
        if orders:
            await connection.execute(
                _UPDATE_ORDERS, _columns([_order_row(*pair) for pair in orders.values()], 8)
            )
        if moves:
            await connection.execute(_UPDATE_ACCOUNTS, _columns([_posting_row(move) for move in moves], 4))
            entries = [(e.user_id, e.asset_id, e.delta_atoms) for e in ledger_entries(moves)]
            await connection.execute(
                _LEDGER, [TRADES_KIND, partition, last.settlement.last_sequence, *_columns(entries, 3)]
            )
        for state in _last_markets(settlements):
            await connection.execute(_MARKETS, _market_row(partition, state))
        await connection.execute(
            _ADVANCE,
            [
                last.settlement.last_sequence,
                last.settlement.chain,
                last.settlement.time_us,
                last.orders_offset,
                told_offset,
                last.settlement.engine_version,
                partition,
            ],
        )
        await connection.execute("COMMIT")


async def _lock(
    connection: Connection,
    settlements: Sequence[m.Settlement],
    orders: Mapping[int, tuple[m.OrderState, int]],
    moves: Sequence[Posting],
    markets: Mapping[int, m.Market],
) -> None:
    """Lock orders, then accounts (I9), and check that the engine spent what TX1 had held."""
    keys = [(move.user_id, move.asset_id) for move in moves]
    async with connection.pipeline():
        locked = await connection.execute(_LOCK_ORDERS, [sorted(orders)])
        accounts = await connection.execute(_LOCK_ACCOUNTS, _columns(keys, 2))
    held: dict[int, int] = dict(await locked.fetchall())
    _check_holds(settlements, orders, held, markets)
    missing = sorted(set(keys) - {(row[0], row[1]) for row in await accounts.fetchall()})
    if missing:
        raise AccountsMissing(missing)


def _check_holds(
    settlements: Sequence[m.Settlement],
    orders: Mapping[int, tuple[m.OrderState, int]],
    held: Mapping[int, int],
    markets: Mapping[int, m.Market],
) -> None:
    """What was held - what was spent - what was given back = what is held, for every order."""
    left = dict(held)
    for batch in settlements:
        for trade in batch.trades:
            market = markets[trade.market_id]
            base_atoms = trade.qty_lots * market.lot_atoms
            quote_atoms = trade.price_ticks * trade.qty_lots * market.atoms_per_tick_lot
            taker_buys = trade.taker_side == m.Side.BUY
            for order_id, buys in (
                (trade.taker_order_id, taker_buys),
                (trade.maker_order_id, not taker_buys),
            ):
                left[order_id] = left.get(order_id, 0) - (quote_atoms if buys else base_atoms)
        for state in batch.orders:
            left[state.order_id] = left.get(state.order_id, 0) - state.released_atoms
    for order_id, (state, _) in orders.items():
        if order_id not in held:
            raise CannotSettle(f"order {order_id} is not in the database")
        if left[order_id] != state.held_atoms:
            raise CannotSettle(
                f"order {order_id} would hold {left[order_id]}, the engine says {state.held_atoms}"
            )


def _last_states(settlements: Sequence[m.Settlement]) -> dict[int, tuple[m.OrderState, int]]:
    """Each order as the last of the batches left it, and when."""
    return {state.order_id: (state, batch.time_us) for batch in settlements for state in batch.orders}


def _last_markets(settlements: Sequence[m.Settlement]) -> list[m.MarketState]:
    last = {state.market_id: state for batch in settlements for state in batch.markets}
    return [last[market_id] for market_id in sorted(last)]


def _sum_postings(settlements: Sequence[m.Settlement], markets: Mapping[int, m.Market]) -> list[Posting]:
    """One posting for each account, over all the batches, sorted as accounts are locked."""
    sums: dict[tuple[int, int], list[int]] = {}
    for batch in settlements:
        for move in postings(batch, markets):
            total = sums.setdefault((move.user_id, move.asset_id), [0, 0])
            total[0] += move.available_delta_atoms
            total[1] += move.held_delta_atoms
    return [Posting(*account, *sums[account]) for account in sorted(sums)]


def _columns(rows: Sequence[tuple[int, ...]], width: int) -> list[list[int]]:
    return [[row[index] for row in rows] for index in range(width)]


def _order_row(state: m.OrderState, time_us: int) -> tuple[int, ...]:
    return (
        state.order_id,
        int(state.status),
        int(state.reason),
        state.filled_lots,
        state.filled_quote_atoms,
        state.fee_atoms,
        state.held_atoms,
        time_us,
    )


def _posting_row(move: Posting) -> tuple[int, ...]:
    return move.user_id, move.asset_id, move.available_delta_atoms, move.held_delta_atoms


def _market_row(partition: int, state: m.MarketState) -> tuple[int, ...]:
    return (
        state.market_id,
        partition,
        int(state.status),
        state.maker_fee_bps,
        state.taker_fee_bps,
        state.next_trade_id,
        state.last_price_ticks,
    )


def _trade_rows(batch: m.Settlement) -> list[TupleRow]:
    return [
        (
            trade.market_id,
            trade.trade_id,
            batch.partition,
            trade.sequence,
            batch.time_us,
            trade.price_ticks,
            trade.qty_lots,
            int(trade.taker_side),
            trade.maker_order_id,
            trade.taker_order_id,
            trade.maker_user_id,
            trade.taker_user_id,
            trade.maker_fee_atoms,
            trade.taker_fee_atoms,
        )
        for trade in batch.trades
    ]
