"""TX2: settles the batches right after the watermark, in one transaction (I6, I7, I9, I10).

`judge_all` looks at the batches in order and says what is to be done with each; `settle` does it in
two round trips: every lock (lease, watermark, orders, accounts), then everything else with the commit.

Does not promise: progress. A gap, a fork or a token of yesterday leaves everything as it was; the
settler acts on what `Outcome` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter, Histogram
from psycopg.rows import TupleRow

from common.arrays import Int8s, packed
from common.core import messages as m
from common.core.errors import ExchangeError
from common.core.sequencing import Verdict, judge
from common.stops import MATCHING, SETTLEMENT
from common.telemetry import get_logger
from common.trip import Asked, Param, Trips
from daemons.order_service.settlement_rows import (
    Rows,
    account_columns,
    account_keys,
    digest_columns,
    ledger_columns,
    market_rows,
    order_columns,
    rows_of,
    trade_columns,
)

TRADES_KIND = 3

log = get_logger(__name__)

SETTLED = Counter("exchange_settled_commands_total", "Commands settled", ["partition"])
REFUSED = Counter("exchange_settlement_refusals_total", "Batches refused", ["partition", "cause"])
SECONDS = Histogram(
    "exchange_tx2_seconds",
    "Duration of one TX2",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2),
)

_FENCE = """
SELECT service, fencing_token FROM partition_leader_locks
WHERE service = ANY(%s::text[]) AND partition = %s ORDER BY service FOR KEY SHARE
"""
_WATERMARK = """
SELECT sequence, chain, settlements_offset, stopped FROM watermarks WHERE partition = %s FOR NO KEY UPDATE
"""
# What TX1 promised at these places, settled or not. A batch whose commit PostgreSQL lost in a failover may
# still lie in Kafka: it continues the watermark's chain as well as the one that has taken its place.
_PROMISED = """
SELECT first_sequence, chain FROM outbox WHERE partition = %s AND first_sequence = ANY(%s::bigint[])
UNION ALL
SELECT first_sequence, chain FROM outbox_archive WHERE partition = %s AND first_sequence = ANY(%s::bigint[])
"""
_LOCK_ORDERS = """
SELECT order_id, held_atoms FROM orders WHERE order_id = ANY(%s::bigint[]) ORDER BY order_id FOR NO KEY UPDATE
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
SELECT %s::smallint, %s::int, %s::bigint, * FROM unnest(%s::bigint[], %s::int[], %s::bigint[])
"""
_MARKETS = """
INSERT INTO market_states
    (market_id, partition, status, maker_fee_bps, taker_fee_bps, next_trade_id, last_price_ticks)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (market_id) DO UPDATE SET status = excluded.status, maker_fee_bps = excluded.maker_fee_bps,
    taker_fee_bps = excluded.taker_fee_bps, next_trade_id = excluded.next_trade_id,
    last_price_ticks = excluded.last_price_ticks
"""
_DIGESTS = """
INSERT INTO book_digests (partition, sequence, market_id, digest)
SELECT %s::int, * FROM unnest(%s::bigint[], %s::int[], %s::bytea[])
"""
_ADVANCE = """
UPDATE watermarks SET sequence = %s, chain = %s, time_us = %s, orders_offset = %s, settlements_offset = %s,
    engine_version = %s WHERE partition = %s
"""
_TRADES = """
INSERT INTO trades (
    market_id, trade_id, partition, sequence, time_us, price_ticks, qty_lots, taker_side, maker_order_id,
    taker_order_id, maker_user_id, taker_user_id, maker_fee_atoms, taker_fee_atoms)
SELECT * FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[], %s::smallint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
    %s::bigint[])
"""


_BOTH = f"{{{MATCHING},{SETTLEMENT}}}"
_Locked = Sequence[Sequence[TupleRow]]  # What the locks on orders, and on accounts if any, gave.


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
    promised: Mapping[int, bytes],
) -> Outcome:
    """What to do with each batch: was it promised; then, as I7 says, settled already, token, gap, chain.

    `promised` are the chains of what TX1 wrote, by first sequence. Anything else is passed over: it was made
    of a commit that PostgreSQL has lost.
    """
    outcome = Outcome()
    beyond = 0
    for delivery in deliveries:
        batch = delivery.settlement
        if promised.get(batch.first_sequence) != batch.chain:
            REFUSED.labels(partition, "not_promised").inc()
            log.error("not promised", partition=partition, sequence=batch.first_sequence)
            continue
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
            REFUSED.labels(partition, verdict.value).inc()
            if verdict is Verdict.FORK:
                outcome.fork = True
                break
            beyond = max(beyond, batch.first_sequence)  # What fills the gap may come right after it.
    outcome.gap = beyond > sequence
    return outcome


async def settle(
    trips: Trips,
    deliveries: Sequence[Delivery],
    *,
    partition: int,
    settlement_token: int,
    told_offset: int,
    markets: Mapping[int, m.Market],
) -> Outcome:
    """Settle what may be settled of `deliveries`; `told_offset` is what has been published of them before.

    Raises CannotSettle, KeyError for an unknown market, and psycopg errors; nothing has changed then, and the
    session wants a rollback.
    """
    with SECONDS.time():
        try:
            return await _settle(trips, deliveries, partition, settlement_token, told_offset, markets)
        except AccountsMissing as missing:
            await trips.rollback()
            await trips.go([(_OPEN_ACCOUNTS, packed(account_keys(missing.accounts)))])
            return await _settle(trips, deliveries, partition, settlement_token, told_offset, markets)


async def _settle(
    trips: Trips,
    deliveries: Sequence[Delivery],
    partition: int,
    settlement_token: int,
    told_offset: int,
    markets: Mapping[int, m.Market],
) -> Outcome:
    firsts = Int8s([delivery.settlement.first_sequence for delivery in deliveries]).packed()
    guess = _guess(deliveries, markets)
    _, fence, watermark, promised, *locked = await trips.go(
        [
            ("BEGIN", ()),
            (_FENCE, [_BOTH, partition]),
            (_WATERMARK, [partition]),
            (_PROMISED, [partition, firsts, partition, firsts]),
            *(_locks(guess) if guess else ()),
        ]
    )
    tokens: dict[str, int] = dict(fence)
    assert watermark, f"partition {partition} does not exist"
    [(sequence, chain, *_)] = watermark
    if tokens.get(SETTLEMENT) != settlement_token:
        REFUSED.labels(partition, "settler").inc()
        await trips.rollback()
        return Outcome(lease_lost=True)
    outcome = judge_all(
        deliveries,
        partition=partition,
        sequence=sequence,
        chain=chain,
        matching_token=tokens.get(MATCHING, 0),
        promised=dict(promised),
    )
    fresh = outcome.fresh
    if not fresh:
        await trips.rollback()
        return outcome
    if guess is None or len(fresh) < len(deliveries):
        guess = rows_of([delivery.settlement for delivery in fresh], markets)
        locked = await trips.go(_locks(guess))
    _check(guess, locked)
    await trips.go([*_writes(partition, guess, fresh[-1], told_offset), ("COMMIT", ())])
    SETTLED.labels(partition).inc(fresh[-1].settlement.last_sequence - sequence)
    return outcome


def _guess(deliveries: Sequence[Delivery], markets: Mapping[int, m.Market]) -> Rows | None:
    """The rows if all is to be settled, as it nearly always is: their locks then cost no round trip.

    None when there are no such rows, which matters only when it is to be settled.
    """
    try:
        return rows_of([delivery.settlement for delivery in deliveries], markets)
    except (KeyError, AssertionError):
        return None


def _locks(rows: Rows) -> list[Asked]:
    """Orders, then accounts (I9), after lease and watermark."""
    asked: list[Asked] = [(_LOCK_ORDERS, [rows.order_ids.packed()])]
    if rows.accounts:
        asked.append((_LOCK_ACCOUNTS, packed(account_keys(rows.accounts))))
    return asked


def _check(rows: Rows, locked: _Locked) -> None:
    """The engine spent what TX1 had held, and everybody has an account for what comes in."""
    orders, *accounts = locked
    check_holds(rows, dict(orders))
    missing = set(rows.accounts).difference(*accounts)
    if missing:
        raise AccountsMissing(sorted(missing))


def check_holds(rows: Rows, held: Mapping[int, int]) -> None:
    """What was held - what was spent - what was given back = what is held, for every order.

    `held`: atoms by order id, as they are in the database. Raises CannotSettle.
    """
    unheld = rows.moves.unheld_atoms
    for state, _ in rows.orders:
        order_id = state.order_id
        before = held.get(order_id)
        if before is None:
            raise CannotSettle(f"order {order_id} is not in the database")
        left = before - unheld.get(order_id, 0)
        if left != state.held_atoms:
            raise CannotSettle(f"order {order_id} would hold {left}, the engine says {state.held_atoms}")


def _writes(partition: int, rows: Rows, last: Delivery, told_offset: int) -> list[Asked]:
    """Everything that TX2 writes."""
    asked: list[tuple[str, Sequence[Param]]] = []
    moves, newest = rows.moves.postings, last.settlement
    if any(batch.trades for batch in rows.settlements):
        asked.append((_TRADES, packed(trade_columns(rows.settlements))))
    if rows.orders:
        asked.append((_UPDATE_ORDERS, packed(order_columns(rows.orders))))
    if moves:
        asked.append((_UPDATE_ACCOUNTS, packed(account_columns(moves))))
        entries = packed(ledger_columns(moves))
        asked.append((_LEDGER, [TRADES_KIND, partition, newest.last_sequence, *entries]))
    asked += [(_MARKETS, state) for state in market_rows(partition, rows.settlements)]
    if any(batch.digests for batch in rows.settlements):
        asked.append((_DIGESTS, [partition, *packed(digest_columns(rows.settlements))]))
    place: list[Param] = [newest.last_sequence, newest.chain, newest.time_us, last.orders_offset, told_offset]
    asked.append((_ADVANCE, [*place, newest.engine_version, partition]))
    return asked
