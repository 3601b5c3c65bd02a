"""Checks the money and the books of an exchange, running or stopped, in one snapshot (I7, I10).

Each check is a query that counts what it looked at and gives the rows that must not be there. It only
reads, and it takes no locks that anybody would wait for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.db import Connection

MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Check:
    """`looked_at` counts rows; `violations` selects what breaks the rule."""

    name: str
    looked_at: str
    violations: str


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `rows` are the first of those that break it."""

    name: str
    looked_at: int
    rows: Sequence[tuple[object, ...]]

    @property
    def ok(self) -> bool:
        return not self.rows


_PAYS = "CASE WHEN o.side = 1 THEN m.quote_asset_id ELSE m.base_asset_id END"
# What each order got out of its trades, whichever side it was on.
_SIDES = """
    SELECT taker_order_id AS order_id, market_id, price_ticks, qty_lots, taker_fee_atoms AS fee_atoms
    FROM trades
    UNION ALL
    SELECT maker_order_id, market_id, price_ticks, qty_lots, maker_fee_atoms FROM trades
"""
_TICK_LOT = "(m.tick_atoms::numeric * m.lot_atoms / (10::numeric ^ b.scale))"

CHECKS = (
    Check(
        "every asset sums to zero in the ledger",
        "SELECT count(*) FROM ledger",
        "SELECT asset_id, sum(delta_atoms) FROM ledger GROUP BY asset_id HAVING sum(delta_atoms) <> 0",
    ),
    Check(
        "every ledger transaction sums to zero",
        "SELECT count(*) FROM ledger",
        "SELECT kind, partition, sequence, reference, asset_id, sum(delta_atoms) FROM ledger"
        " GROUP BY kind, partition, sequence, reference, asset_id HAVING sum(delta_atoms) <> 0",
    ),
    Check(
        "available + held = deposits - withdrawals, per asset",
        "SELECT count(*) FROM accounts",
        "SELECT asset_id, have, came FROM"
        " (SELECT asset_id, sum(available_atoms + held_atoms) AS have FROM accounts GROUP BY asset_id) a"
        " FULL JOIN (SELECT asset_id, -sum(delta_atoms) AS came FROM ledger WHERE user_id = 0 GROUP BY 1) l"
        " USING (asset_id) WHERE coalesce(have, 0) <> coalesce(came, 0)",
    ),
    Check(
        "every balance is the sum of its ledger rows",
        "SELECT count(*) FROM accounts",
        "SELECT user_id, asset_id, have, sum FROM"
        " (SELECT user_id, asset_id, available_atoms + held_atoms AS have FROM accounts) a FULL JOIN"
        " (SELECT user_id, asset_id, sum(delta_atoms) FROM ledger WHERE user_id <> 0 GROUP BY 1, 2) l"
        " USING (user_id, asset_id) WHERE coalesce(have, 0) <> coalesce(sum, 0)",
    ),
    Check(
        "held is what the live orders hold, per account",
        "SELECT count(*) FROM accounts",
        f"SELECT user_id, asset_id, held_atoms, orders_hold FROM accounts FULL JOIN"  # noqa: S608
        f" (SELECT o.user_id, {_PAYS} AS asset_id, sum(o.held_atoms) AS orders_hold"
        f"  FROM orders o JOIN markets m USING (market_id) WHERE o.held_atoms <> 0 GROUP BY 1, 2) h"
        f" USING (user_id, asset_id) WHERE coalesce(held_atoms, 0) <> coalesce(orders_hold, 0)",
    ),
    Check(
        "an ended order holds nothing",
        "SELECT count(*) FROM orders",
        "SELECT order_id, status, held_atoms FROM orders WHERE status > 3 AND held_atoms <> 0",
    ),
    Check(
        "every order's filled quantity, quote and fee are the sums of its trades",
        "SELECT count(*) FROM orders",
        f"SELECT o.order_id, o.filled_lots, s.lots, o.filled_quote_atoms, s.quote, o.fee_atoms, s.fee"  # noqa: S608
        f" FROM orders o LEFT JOIN (SELECT t.order_id, sum(t.qty_lots) AS lots, sum(t.fee_atoms) AS fee,"
        f"  sum(t.price_ticks::numeric * t.qty_lots * {_TICK_LOT}) AS quote FROM ({_SIDES}) t"
        f"  JOIN markets m USING (market_id) JOIN assets b ON b.asset_id = m.base_asset_id GROUP BY 1) s"
        f" USING (order_id) WHERE (o.filled_lots, o.filled_quote_atoms, o.fee_atoms)"
        f" <> (coalesce(s.lots, 0), coalesce(s.quote, 0), coalesce(s.fee, 0))",
    ),
    Check(
        "trade ids are consecutive in every market",
        "SELECT count(*) FROM trades",
        "SELECT market_id, count(*), min(trade_id), max(trade_id), s.next_trade_id"
        " FROM market_states s LEFT JOIN trades t USING (market_id) GROUP BY market_id, s.next_trade_id"
        " HAVING count(t.trade_id) <> s.next_trade_id - 1"
        " OR coalesce(max(trade_id), 0) <> s.next_trade_id - 1",
    ),
    Check(
        "the batches of every partition follow each other, up to its last sequence",
        "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM outbox_archive)",
        "WITH log AS (SELECT * FROM outbox UNION ALL SELECT * FROM outbox_archive), pairs AS ("
        " SELECT partition, first_sequence, previous_chain, chain, last_sequence,"
        "  lag(last_sequence, 1, 0) OVER w AS before,"
        "  lag(chain, 1, decode(repeat('00', 32), 'hex')) OVER w AS link, lead(first_sequence) OVER w AS after"
        "  FROM log WINDOW w AS (PARTITION BY partition ORDER BY first_sequence))"
        " SELECT p.partition, p.first_sequence, p.before FROM pairs p JOIN shards s USING (partition)"
        " WHERE p.first_sequence <> p.before + 1 OR p.previous_chain <> p.link"
        " OR (p.after IS NULL AND (p.last_sequence, p.chain) <> (s.last_sequence, s.chain))",
    ),
    Check(
        "the watermark stands at the end of a batch, on its chain",
        "SELECT count(*) FROM watermarks",
        "SELECT w.partition, w.sequence FROM watermarks w WHERE w.sequence > 0 AND NOT EXISTS ("
        " SELECT FROM (SELECT * FROM outbox UNION ALL SELECT * FROM outbox_archive) l"
        " WHERE l.partition = w.partition AND l.last_sequence = w.sequence AND l.chain = w.chain)",
    ),
    Check(
        "nothing above the watermark is settled, and nothing below is not",
        "SELECT count(*) FROM orders",
        "SELECT o.order_id, o.status, o.sequence, w.sequence"
        " FROM orders o JOIN watermarks w USING (partition) WHERE (o.sequence > w.sequence"
        " AND (o.status <> 1 OR o.filled_lots <> 0 OR o.held_atoms <> o.hold_atoms))"
        " OR (o.sequence <= w.sequence AND o.status = 1)",
    ),
    Check(
        "no trade stands above the watermark",
        "SELECT count(*) FROM trades",
        "SELECT t.market_id, t.trade_id FROM trades t JOIN watermarks w USING (partition)"
        " WHERE t.sequence > w.sequence",
    ),
    Check(
        "every state of an order has a history that explains it",
        "SELECT count(*) FROM orders",
        "SELECT order_id, status, reason, qty_lots, filled_lots FROM orders WHERE"
        " (status = 2 AND filled_lots <> 0) OR (status = 3 AND filled_lots = 0)"
        " OR (qty_lots > 0 AND filled_lots > qty_lots)"
        " OR (status = 4 AND qty_lots > 0 AND filled_lots <> qty_lots) OR (status = 4 AND filled_lots = 0)"
        " OR (status IN (5, 6, 7) AND reason = 0) OR (status = 6 AND filled_lots <> 0)",
    ),
)


async def audit(connection: Connection) -> list[Finding]:
    """Run every check in one snapshot."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return [await _run(connection, check) for check in CHECKS]


async def _run(connection: Connection, check: Check) -> Finding:
    counted = await (await connection.execute(check.looked_at.encode())).fetchone()
    assert counted is not None
    cursor = await connection.execute(
        f"{check.violations} LIMIT {MOST_ROWS}".encode()
    )  # constants of this file
    return Finding(check.name, int(counted[0]), await cursor.fetchall())
