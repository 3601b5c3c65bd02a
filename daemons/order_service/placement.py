"""TX1: the holds, the orders, the commands and their outbox rows, in one transaction (I1, I2, I9).

One `Placement` owns one session and runs one transaction at a time, in three round trips: lock and
look, hold and take the sequence, write and commit. `planning` decides between them.

Does not promise: fairness between batches. Who calls decides what stands in a batch, and in what order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import TupleRow

from common import sequence
from common.core import messages as m
from common.db import Connection
from daemons.order_service.markets import Markets
from daemons.order_service.planning import Known, Lookup, Plan, Seen, check, decide, lookup_for
from daemons.order_service.requests import Accepted, Answer, NewOrder, Request

# Below this many rows, statements in the pipeline beat the round trips that a COPY needs.
COPY_FROM_ROWS = 12

_LOCK_USERS = "SELECT user_id FROM users WHERE user_id = ANY(%s) ORDER BY user_id FOR NO KEY UPDATE"
# LATERAL keeps the plan at one index probe for each id, however large the table and the batch.
_KNOWN = """
SELECT o.order_id, o.sequence, o.created_us, o.user_id, o.market_id, o.side, o.type, o.time_in_force,
       o.post_only, o.stp, o.price_ticks, o.qty_lots, o.quote_atoms, o.client_order_id
FROM unnest(%s::bigint[], %s::text[]) AS w (user_id, client_order_id), LATERAL (
    SELECT * FROM orders WHERE user_id = w.user_id AND client_order_id = w.client_order_id LIMIT 1
) o
"""
_CANCELS = "SELECT order_id, user_id, partition, status FROM orders WHERE order_id = ANY(%s)"
_LIVE = """
SELECT user_id, partition, market_id, count(*) FROM orders
WHERE user_id = ANY(%s) AND status <= 3 GROUP BY user_id, partition, market_id
"""
_STATES = "SELECT market_id, status, last_price_ticks FROM market_states WHERE market_id = ANY(%s)"
_LOCK_ACCOUNTS = """
SELECT a.user_id, a.asset_id, a.available_atoms
FROM accounts a
WHERE (a.user_id, a.asset_id) IN (SELECT * FROM unnest(%s::bigint[], %s::int[]))
ORDER BY a.user_id, a.asset_id FOR NO KEY UPDATE
"""
_HOLD = """
UPDATE accounts a SET available_atoms = a.available_atoms - w.atoms, held_atoms = a.held_atoms + w.atoms
FROM unnest(%s::bigint[], %s::int[], %s::bigint[]) AS w (user_id, asset_id, atoms)
WHERE a.user_id = w.user_id AND a.asset_id = w.asset_id
"""
_COLUMNS = """
    order_id, user_id, market_id, partition, sequence, client_order_id, side, type, time_in_force, post_only,
    stp, price_ticks, qty_lots, quote_atoms, hold_atoms, created_us, status, held_atoms, updated_us
"""
_TYPES = (
    *("int8", "int8", "int4", "int4", "int8", "text", "int2", "int2", "int2", "bool"),
    *("int2", "int8", "int8", "int8", "int8", "int8", "int2", "int8", "int8"),
)
_INSERT = f"INSERT INTO orders ({_COLUMNS}) VALUES ({', '.join(['%s'] * len(_TYPES))})"  # noqa: S608
_COPY = f"COPY orders ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
_ANY_OF = "SELECT 1 FROM orders WHERE order_id = ANY(%s) LIMIT 1"

_OrderRow = tuple[object, ...]


@dataclass(slots=True)
class Committed:
    """An answer for each request, and the partitions that have a new batch."""

    answers: list[Answer]
    partitions: list[int]


@dataclass(slots=True)
class Doubt:
    """A commit that was sent and not answered yet: what it will have meant, if it happened."""

    answers: list[Answer]
    user_ids: list[int]
    order_ids: list[int]


class Placement:
    """Runs TX1 on one session. Order ids come from the caller, taken before the transaction (I2)."""

    def __init__(self, connection: Connection, markets: Markets) -> None:
        self._connection = connection
        self._markets = markets
        self.doubt: Doubt | None = None

    async def commit(self, requests: Sequence[Request], order_ids: Sequence[int]) -> Committed:
        """Commit the batch and answer each request, in order; a refused one does not touch the others.

        `order_ids` has one id for each request. Raises psycopg errors; when `doubt` is set then, the
        batch may have been committed all the same, and `did_commit` tells.
        """
        checked = [check(request, self._markets) for request in requests]
        seen = await self._look(lookup_for(requests, checked))
        plan = decide(requests, checked, order_ids, seen)
        if plan.entries:
            await self._write(plan)
        else:
            await self._connection.rollback()
        return Committed(plan.complete(), sorted(plan.entries))

    async def did_commit(self, doubt: Doubt) -> bool:
        """True when the transaction in doubt did commit. Cancels alone may simply be sent again.

        The locks on its users are taken first: that waits for its end, should it still be under way.
        """
        async with self._connection.transaction():
            await self._connection.execute(_LOCK_USERS, [doubt.user_ids])
            cursor = await self._connection.execute(_ANY_OF, [doubt.order_ids])
            return await cursor.fetchone() is not None

    async def next_block(self) -> int:
        """The first id of a block of the sequence `order_ids`, which nobody else gets."""
        cursor = await self._connection.execute("SELECT nextval('order_ids')")
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def _look(self, lookup: Lookup) -> Seen:
        """First round trip. The users' locks come before the look-up of client order ids (I9)."""
        execute = self._connection.execute
        names, accounts = sorted(lookup.client_ids), sorted(lookup.accounts)
        async with self._connection.pipeline():
            await execute("BEGIN")
            await execute(_LOCK_USERS, [sorted(lookup.users)])
            known = await execute(_KNOWN, [[u for u, _ in names], [c for _, c in names]]) if names else None
            cancels = await execute(_CANCELS, [sorted(lookup.cancels)]) if lookup.cancels else None
            live = await execute(_LIVE, [sorted(lookup.sweepers)]) if lookup.sweepers else None
            states = await execute(_STATES, [sorted(lookup.markets)]) if lookup.markets else None
            held = (
                await execute(_LOCK_ACCOUNTS, [[u for u, _ in accounts], [a for _, a in accounts]])
                if accounts
                else None
            )
        seen = Seen()
        for row in await known.fetchall() if known else ():
            found = self._known(row)
            seen.known[found.order.user_id, found.order.client_order_id] = found
        for order_id, user_id, partition, status in await cancels.fetchall() if cancels else ():
            seen.cancels[order_id] = (user_id, partition, status)
        for user_id, partition, market_id, orders in await live.fetchall() if live else ():
            seen.live[user_id].append((partition, market_id, orders))
        for market_id, status, last_price_ticks in await states.fetchall() if states else ():
            seen.states[market_id] = (status, last_price_ticks)
        for user_id, asset_id, available_atoms in await held.fetchall() if held else ():
            seen.available[user_id, asset_id] = available_atoms
        return seen

    def _known(self, row: TupleRow) -> Known:
        order_id, number, created_us, user_id, market_id, side, kind, tif, post_only, stp, *rest = row
        price_ticks, qty_lots, quote_atoms, client_order_id = rest
        market = self._markets.by_id.get(market_id)  # None: another replica knows a market sooner.
        symbol = market.symbol if market else ""
        order = NewOrder(
            user_id,
            symbol,
            m.Side(side),
            m.OrderType(kind),
            m.TimeInForce(tif),
            post_only,
            m.SelfTradePrevention(stp),
            price_ticks,
            qty_lots,
            quote_atoms,
            client_order_id,
        )
        return Known(Accepted(order_id, client_order_id, symbol, number, created_us, repeated=True), order)

    async def _write(self, plan: Plan) -> None:
        """Second and third round trip: hold, take the sequence, write, commit."""
        partitions = sorted(plan.entries)
        holds = sorted(plan.holds.items())
        async with self._connection.pipeline():
            if holds:
                await self._connection.execute(
                    _HOLD, [[k[0] for k, _ in holds], [k[1] for k, _ in holds], [v for _, v in holds]]
                )
            takes = [await sequence.ask(self._connection, partition) for partition in partitions]
        places = [
            await sequence.taken(take, partition) for take, partition in zip(takes, partitions, strict=True)
        ]
        rows = [row for place in places for row in _order_rows(plan, place)]
        if len(rows) >= COPY_FROM_ROWS:
            async with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
                copy.set_types(_TYPES)
                for row in rows:
                    await copy.write_row(row)
            rows = []
        symbols = {market.market_id: market.symbol for market in self._markets.by_id.values()}
        for place in places:
            plan.answer(place.partition, place.first_sequence, place.time_us, symbols)
        self.doubt = _doubt(plan)
        async with self._connection.pipeline():
            for row in rows:
                await self._connection.execute(_INSERT, row)
            for place in places:
                commands = [entry.command for entry in plan.entries[place.partition]]
                await sequence.write(self._connection, place, commands)
            await self._connection.execute("COMMIT")
        self.doubt = None


def _doubt(plan: Plan) -> Doubt:
    placed = [
        entry.command
        for entries in plan.entries.values()
        for entry in entries
        if isinstance(entry.command, m.Place)
    ]
    return Doubt(
        answers=plan.complete(),
        user_ids=sorted({place.user_id for place in placed}),
        order_ids=[place.order_id for place in placed],
    )


def _order_rows(plan: Plan, place: sequence.Place) -> list[_OrderRow]:
    """The rows of `orders` for one partition, in the order of `_COLUMNS`."""
    rows: list[_OrderRow] = []
    for offset, entry in enumerate(plan.entries[place.partition]):
        command = entry.command
        if not isinstance(command, m.Place):
            continue
        rows.append(
            (
                command.order_id,
                command.user_id,
                command.market_id,
                place.partition,
                place.first_sequence + offset,
                command.client_order_id or None,
                int(command.side),
                int(command.type),
                int(command.time_in_force),
                command.post_only,
                int(command.stp),
                command.price_ticks,
                command.qty_lots,
                command.quote_atoms,
                command.hold_atoms,
                place.time_us,
                int(m.OrderStatus.ACCEPTED),
                command.hold_atoms,
                place.time_us,
            )
        )
    return rows
