"""PostgreSQL fails over to a standby that lacks the last commits, which Kafka has already.

What was made of them settles nowhere, whether the engines that come have seen them or not, and trading
goes on by itself with what PostgreSQL remembers. The traces are those of tests/specification.
"""

import httpx
import pytest

from exchange.v1 import types_pb2 as ty
from tests.integration.spine.spine import BUY, MATCHINGS, ORDER_SERVICE, SELL, Spine, order

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000

# Back to the watermark, as a standby that had received everything up to there.
_LOSE = """
WITH lost AS (
    DELETE FROM orders o USING watermarks w
    WHERE o.partition = 0 AND w.partition = 0 AND o.sequence > w.sequence RETURNING o.*
), held AS (
    SELECT l.user_id, CASE l.side WHEN 1 THEN m.quote_asset_id ELSE m.base_asset_id END AS asset_id,
           sum(l.held_atoms)::bigint AS atoms
    FROM lost l JOIN markets m USING (market_id) GROUP BY 1, 2
), given_back AS (
    UPDATE accounts a SET available_atoms = available_atoms + h.atoms, held_atoms = held_atoms - h.atoms
    FROM held h WHERE (a.user_id, a.asset_id) = (h.user_id, h.asset_id)
), forgotten AS (
    DELETE FROM outbox o USING watermarks w
    WHERE o.partition = 0 AND w.partition = 0 AND o.first_sequence > w.sequence
), sent_back AS (
    UPDATE relay_cursors c SET next_sequence = w.sequence + 1
    FROM watermarks w WHERE c.partition = 0 AND w.partition = 0
), going_on AS (
    UPDATE watermarks SET stopped = NULL WHERE partition = 0
)
UPDATE shards s SET last_sequence = w.sequence, last_time_us = w.time_us, chain = w.chain
FROM watermarks w WHERE s.partition = 0 AND w.partition = 0 RETURNING s.last_sequence
"""


async def _published(spine: Spine) -> None:
    async def all_sent() -> bool:
        question = """SELECT next_sequence > last_sequence FROM relay_cursors JOIN shards USING (partition)
                      WHERE partition = 0"""
        return await spine.rows(question) == [(True,)]

    await spine.until(all_sent)


async def _fail_over(spine: Spine) -> None:
    """The old primary is gone; nobody is connected while the standby takes its place."""
    await _published(spine)
    spine.exchange.kill(ORDER_SERVICE)
    assert await spine.rows(_LOSE)
    spine.exchange.start(ORDER_SERVICE)


async def _applied(spine: Spine) -> None:
    """Until both engines have everything that there is."""
    [(last,)] = await spine.rows("SELECT last_sequence FROM shards WHERE partition = 0")

    async def both() -> bool:
        at = [spine.exchange.metrics(name)['exchange_matching_sequence{partition="0"}'] for name in MATCHINGS]
        return at == [last, last]

    await spine.until(both)


async def _refused(spine: Spine) -> None:
    """Until TX2 has refused what was made of a lost commit; nobody else has settled anything yet."""

    async def is_refused() -> bool:
        try:
            counted = spine.exchange.metrics(ORDER_SERVICE)
        except httpx.TransportError:  # It starts.
            return False
        return counted.get('exchange_settlement_refusals_total{cause="not_promised",partition="0"}', 0) > 0

    await spine.until(is_refused)


@pytest.fixture
async def resting(spine: Spine) -> tuple[int, int]:
    """A bid that somebody has in the book: user and order."""
    user = await spine.join()
    [bid] = await spine.place(user, order(BUY, PRICE, LOTS))
    await spine.settled()
    return user, bid.order_id


async def test_a_lost_sale_trades_with_nobody(spine: Spine, resting: tuple[int, int]) -> None:
    seller = await spine.join()
    for name in MATCHINGS:
        spine.exchange.kill(name)
    await spine.place(seller, order(SELL, PRICE, LOTS))
    await _fail_over(spine)
    spine.exchange.start(*MATCHINGS)
    await _refused(spine)
    await spine.place(seller, order(SELL, PRICE + 10, LOTS))
    await spine.settled()
    assert (await spine.order(*resting)).status == ty.ORDER_STATUS_OPEN
    assert await spine.rows("SELECT 1 FROM trades WHERE taker_user_id = %s", seller) == []
    await spine.cancel_all(resting[0], seller)


async def test_a_lost_cancel_cancels_nothing(spine: Spine, resting: tuple[int, int]) -> None:
    """Nothing in the tables contradicts it: only what was promised tells it from a cancel that counts."""
    other = await spine.join()
    for name in MATCHINGS:
        spine.exchange.kill(name)
    await spine.cancel(*resting)
    await _fail_over(spine)
    await spine.place(other, order(BUY, PRICE - 10, LOTS), order(BUY, PRICE - 20, LOTS))
    spine.exchange.start(*MATCHINGS)
    await spine.settled()
    assert (await spine.order(*resting)).status == ty.ORDER_STATUS_OPEN
    await spine.cancel_all(resting[0], other)


async def test_engines_that_have_applied_what_is_lost_begin_again(
    spine: Spine, resting: tuple[int, int]
) -> None:
    """They are further on than the log is now, and its next batch has a number that they have seen."""
    seller = await spine.join()
    await spine.rows("UPDATE watermarks SET stopped = 'a failover is near' WHERE partition = 0 RETURNING 1")
    spine.exchange.kill(ORDER_SERVICE)  # Who settles reads that when it begins.
    spine.exchange.start(ORDER_SERVICE)
    for number in range(3):
        await spine.place(seller, order(SELL, PRICE + number, LOTS))
    await _applied(spine)
    await _fail_over(spine)
    await spine.place(seller, order(SELL, PRICE + 10, LOTS))
    await spine.settled()
    assert (await spine.order(*resting)).status == ty.ORDER_STATUS_OPEN
    assert await spine.rows("SELECT 1 FROM trades WHERE taker_user_id = %s", seller) == []
    await spine.cancel_all(resting[0], seller)
