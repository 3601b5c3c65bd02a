"""TX1: the holds, the orders, the commands and their outbox rows, in one transaction (I1, I2, I9).

One `Placement` owns one session and runs one transaction at a time, in three round trips: lock and
look, hold and take the sequence, write and commit. `planning` decides between them. A few new orders need
two: their partitions are known before anything is looked up, and deciding about them holds up nobody.

Does not promise: fairness between batches. Who calls decides what stands in a batch, and in what order.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from psycopg.rows import TupleRow

from common import sequence
from common.core import messages as m
from common.db import Connection
from common.trip import Asked, Param, Trips
from daemons.order_service import order_rows
from daemons.order_service.backlog import Backlog
from daemons.order_service.markets import Markets
from daemons.order_service.planning import Known, Lookup, Plan, Seen, check, decide, lookup_for
from daemons.order_service.requests import Accepted, Answer, NewOrder, Request

# Below this many rows, statements in the pipeline beat the round trips that a COPY needs.
COPY_FROM_ROWS = 12
# Up to this many new orders take their sequence with the first look.
FEW = COPY_FROM_ROWS - 1

Row = TypeVar("Row")

_BEGIN, _COMMIT = "BEGIN", "COMMIT"
_LOCK_USERS = """
SELECT user_id FROM users WHERE user_id = ANY(%s::bigint[]) ORDER BY user_id FOR NO KEY UPDATE
"""
# LATERAL keeps the plan at one index probe for each id, however large the table and the batch.
_KNOWN = """
SELECT o.order_id, o.sequence, o.created_us, o.user_id, o.market_id, o.side, o.type, o.time_in_force,
       o.post_only, o.stp, o.price_ticks, o.qty_lots, o.quote_atoms, o.client_order_id
FROM unnest(%s::bigint[], %s::text[]) AS w (user_id, client_order_id), LATERAL (
    SELECT * FROM orders WHERE user_id = w.user_id AND client_order_id = w.client_order_id LIMIT 1
) o
"""
_CANCELS = "SELECT order_id, user_id, partition, status FROM orders WHERE order_id = ANY(%s::bigint[])"
_LIVE = """
SELECT user_id, partition, market_id, count(*) FROM orders
WHERE user_id = ANY(%s::bigint[]) AND live GROUP BY user_id, partition, market_id
"""
_STATES = "SELECT market_id, status, last_price_ticks FROM market_states WHERE market_id = ANY(%s::int[])"
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
_EFFECTS = """
SELECT k.user_id, k.key, k.effect FROM unnest(%s::bigint[], %s::text[]) AS w (user_id, key), LATERAL (
    SELECT * FROM idempotency_keys WHERE user_id = w.user_id AND key = w.key LIMIT 1
) k WHERE k.effect IS NOT NULL
"""
# The last rows that TX1 locks: whoever claims or settles a key holds nothing else.
_SET_EFFECT = "UPDATE idempotency_keys SET effect = %s WHERE user_id = %s AND key = %s"
_ANY_OF = "SELECT 1 FROM orders WHERE order_id = ANY(%s::bigint[]) LIMIT 1"
_BLOCKS = "SELECT nextval('order_ids') FROM generate_series(1, %s::int)"


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

    def __init__(self, connection: Connection, markets: Markets, backlog: Backlog | None = None) -> None:
        """`backlog`: which partitions take no new orders; None: all take any number."""
        self._connection = connection
        self._trips = Trips(connection)
        self._markets = markets
        self._backlog = backlog or Backlog()
        self.doubt: Doubt | None = None

    async def commit(self, requests: Sequence[Request], order_ids: Sequence[int]) -> Committed:
        """Commit the batch and answer each request, in order; a refused one does not touch the others.

        `order_ids` has one id for each request. Raises psycopg errors; when `doubt` is set then, the
        batch may have been committed all the same, and `did_commit` tells.
        """
        checked = [check(request, self._markets) for request in requests]
        lookup = lookup_for(requests, checked)
        only_new = not lookup.cancels and not lookup.sweepers
        ahead = sorted(lookup.partitions) if only_new and len(requests) <= FEW else []
        seen, places = await self._look(lookup, ahead)
        seen.crowded = self._backlog.crowded()
        plan = decide(requests, checked, order_ids, seen)
        plan.keyed = bool(lookup.keys)
        if plan.entries:
            return Committed(await self._write(plan, places), sorted(plan.entries))
        await self._trips.rollback()
        return Committed(plan.complete(), [])

    async def did_commit(self, doubt: Doubt) -> bool:
        """True when the transaction in doubt did commit. Cancels alone may simply be sent again.

        The locks on its users are taken first: that waits for its end, should it still be under way.
        """
        async with self._connection.transaction():
            await self._connection.execute(_LOCK_USERS, [_array(doubt.user_ids)])
            cursor = await self._connection.execute(_ANY_OF, [_array(doubt.order_ids)])
            return await cursor.fetchone() is not None

    async def next_block(self) -> int:
        """The first id of a block of the sequence `order_ids`, which nobody else gets."""
        [first] = await self.next_blocks(1)
        return first

    async def next_blocks(self, count: int) -> list[int]:
        """The first ids of several blocks."""
        cursor = await self._connection.execute(_BLOCKS, [count])
        return [int(first) for (first,) in await cursor.fetchall()]

    async def _look(self, lookup: Lookup, ahead: Sequence[int]) -> tuple[Seen, list[sequence.Place]]:
        """First round trip. The users' locks come before the look-up of client order ids (I9).

        `ahead`: the partitions to take at once; their places.
        """
        names, accounts = list(lookup.client_ids), sorted(lookup.accounts)
        asked: dict[str, Sequence[Param]] = {_BEGIN: (), _LOCK_USERS: [_array(sorted(lookup.users))]}
        if names:
            asked[_KNOWN] = [_array(user for user, _ in names), _texts(name for _, name in names)]
        if lookup.cancels:
            asked[_CANCELS] = [_array(sorted(lookup.cancels))]
        if lookup.sweepers:
            asked[_LIVE] = [_array(sorted(lookup.sweepers))]
        if lookup.keys:
            users, keys = zip(*lookup.keys, strict=True)
            asked[_EFFECTS] = [_array(users), _texts(map(_escaped, keys))]
        if lookup.markets:
            asked[_STATES] = [_array(sorted(lookup.markets))]
        if accounts:
            asked[_LOCK_ACCOUNTS] = _accounts(accounts)
        if ahead:
            take, given = sequence.asked(ahead)
            asked[take] = given
        found = dict(zip(asked, await self._trips.go(list(asked.items())), strict=True))
        seen = Seen()
        for row in found.get(_KNOWN, ()):
            known = self._known(row)
            seen.known[known.order.user_id, known.order.client_order_id] = known
        for order_id, user_id, partition, status in found.get(_CANCELS, ()):
            seen.cancels[order_id] = (user_id, partition, status)
        for user_id, partition, market_id, orders in found.get(_LIVE, ()):
            seen.live[user_id].append((partition, market_id, orders))
        for user_id, key, effect in found.get(_EFFECTS, ()):
            seen.effects[user_id, key] = effect
        for market_id, status, last_price_ticks in found.get(_STATES, ()):
            seen.states[market_id] = (status, last_price_ticks)
        for user_id, asset_id, available_atoms in found.get(_LOCK_ACCOUNTS, ()):
            seen.available[user_id, asset_id] = available_atoms
        return seen, sequence.taken(found[take], ahead) if ahead else []

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

    async def _write(self, plan: Plan, ahead: Sequence[sequence.Place]) -> list[Answer]:
        """Second and third round trip: hold, take the sequence unless it is `ahead`, write, commit."""
        partitions = sorted(plan.entries)
        asked: list[Asked] = []
        if plan.holds:
            keys, atoms = zip(*sorted(plan.holds.items()), strict=True)
            asked.append((_HOLD, [*_accounts(keys), _array(atoms)]))
        places = [place for place in ahead if place.partition in plan.entries]
        if not places:
            *_, rows = await self._trips.go([*asked, sequence.asked(partitions)])
            places, asked = sequence.taken(rows, partitions), []
        for place in places:
            plan.answer(place.partition, place.first_sequence, place.time_us, self._markets.symbols)
        doubt = _doubt(plan)
        if len(doubt.order_ids) >= COPY_FROM_ROWS:
            await self._copy(order_rows.packed(_each(plan, places, order_rows.packed_row)))
        else:
            asked += [(order_rows.INSERT, row) for row in _each(plan, places, order_rows.row)]
        for place in places:
            commands = [entry.command for entry in plan.entries[place.partition]]
            asked.append(sequence.written(place, commands))
        asked += [(_SET_EFFECT, effect) for effect in plan.effects()]
        self.doubt = doubt
        await self._trips.go([*asked, (_COMMIT, ())])
        self.doubt = None
        for place in places:
            self._backlog.grown(place.partition, len(plan.entries[place.partition]))
        return doubt.answers

    async def _copy(self, rows: bytes) -> None:
        async with self._connection.cursor() as cursor, cursor.copy(order_rows.COPY) as copy:
            await copy.write(rows)


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


def _each(
    plan: Plan, places: Sequence[sequence.Place], make: Callable[[m.Place, int, int, int], Row]
) -> list[Row]:
    """What `make` makes of each order: of the command, its partition, its sequence and the batch's time."""
    return [
        make(entry.command, place.partition, number, place.time_us)
        for place in places
        for number, entry in enumerate(plan.entries[place.partition], place.first_sequence)
        if isinstance(entry.command, m.Place)
    ]


def _accounts(keys: Iterable[tuple[int, int]]) -> tuple[str, str]:
    users, assets = zip(*keys, strict=True)
    return _array(users), _array(assets)


def _array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes arrays: a list would be looked at number by number to find its type."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _texts(names: Iterable[str]) -> str:
    """Of client order ids that `check` has let pass: nothing in them needs an escape."""
    return '{"' + '","'.join(names) + '"}'


def _escaped(key: str) -> str:
    """An idempotency key may have any visible characters."""
    return key.replace("\\", r"\\").replace('"', r"\"")
