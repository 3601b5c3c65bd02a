"""The path of an order through real processes; old records in any order and gaps change nothing."""

import random

import pytest

from common.wire import decode_batch
from exchange.v1 import orders_pb2
from exchange.v1 import types_pb2 as ty
from tests.integration.spine.spine import BUY, SELL, Spine, caller, order

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000


async def test_an_order_is_placed_matched_and_settled(spine: Spine) -> None:
    ann, bob = await spine.join(), await spine.join()
    [maker] = await spine.place(ann, order(BUY, PRICE, LOTS))
    [taker] = await spine.place(bob, order(SELL, PRICE - 100, LOTS))
    await spine.settled()
    for user, accepted in ((ann, maker), (bob, taker)):
        settled = await spine.order(user, accepted.order_id)
        assert (settled.status, settled.filled_lots) == (ty.ORDER_STATUS_FILLED, LOTS)
        fills = await spine.service.orders.ListFills(orders_pb2.ListFillsRequest(), metadata=caller(user))
        assert [(fill.price_ticks, fill.qty_lots) for fill in fills.fills] == [(PRICE, LOTS)]


async def test_what_a_user_leaves_open_can_be_canceled(spine: Spine) -> None:
    ann = await spine.join()
    [resting] = await spine.place(ann, order(BUY, PRICE - 1_000, LOTS))
    await spine.settled()
    assert (await spine.order(ann, resting.order_id)).status == ty.ORDER_STATUS_OPEN
    await spine.cancel(ann, resting.order_id)
    await spine.settled()
    assert (await spine.order(ann, resting.order_id)).status == ty.ORDER_STATUS_CANCELED


async def _trade_some(spine: Spine, rounds: int = 5) -> None:
    ann, bob = await spine.join(), await spine.join()
    for number in range(rounds):
        await spine.place(ann, order(BUY, PRICE + number, LOTS), order(BUY, PRICE - 500, LOTS))
        await spine.place(bob, order(SELL, PRICE, LOTS // 2))
    await spine.cancel_all(ann, bob)


@pytest.mark.parametrize("topic", ["orders", "settlements"])
async def test_old_records_in_any_order_change_nothing(spine: Spine, topic: str, seed: int) -> None:
    await _trade_some(spine)
    records, before = await spine.records(topic, 0), await spine.money()
    draw = random.Random(seed)
    again = draw.choices(records, k=2 * len(records))  # Some twice, some never, in any order.
    await spine.inject(topic, 0, again)
    await spine.inject(topic, 0, records)
    # What comes after them is settled, so they have been read.
    await _place_and_cancel(spine)
    after = await spine.money()
    assert _without(after, before) == []
    assert after[2] == before[2]  # Not one trade more.


async def _place_and_cancel(spine: Spine) -> None:
    user = await spine.join()
    [resting] = await spine.place(user, order(BUY, PRICE - 1_000, LOTS))
    await spine.settled()
    await spine.cancel(user, resting.order_id)
    await spine.settled()


def _without(after: list[list[tuple[object, ...]]], before: list[list[tuple[object, ...]]]) -> list[object]:
    """The rows of before that changed; the watermark may go on."""
    return [row for was, now in zip(before[:3], after[:3], strict=True) for row in was if row not in now]


async def test_a_gap_is_healed_by_a_rewind(spine: Spine) -> None:
    """The relay's cursor is put ahead, as if records had been lost on the way to Kafka."""
    ann, bob = await spine.join(), await spine.join()
    await spine.settled()
    [(cursor,)] = await spine.rows(
        "UPDATE relay_cursors SET next_sequence = next_sequence + 1 WHERE partition = 0"
        " RETURNING next_sequence"
    )
    assert isinstance(cursor, int)
    [skipped] = await spine.place(ann, order(BUY, PRICE, LOTS))
    assert skipped.sequence == cursor - 1
    [seen] = await spine.place(bob, order(SELL, PRICE, LOTS))
    await spine.settled()
    for user, accepted in ((ann, skipped), (bob, seen)):
        assert (await spine.order(user, accepted.order_id)).status == ty.ORDER_STATUS_FILLED
    sequences = [decode_batch(record.value).first_sequence for record in await spine.records("orders", 0)]
    assert sequences.index(seen.sequence) < sequences.index(skipped.sequence)


async def test_a_lost_last_record_is_noticed_without_a_later_one(spine: Spine) -> None:
    """Nothing comes after it, so only the watermark that stands still tells."""
    ann = await spine.join()
    await spine.settled()
    await spine.rows(
        "UPDATE relay_cursors SET next_sequence = next_sequence + 1 WHERE partition = 0 RETURNING 1"
    )
    [skipped] = await spine.place(ann, order(BUY, PRICE - 1_000, LOTS))
    await spine.settled()
    assert (await spine.order(ann, skipped.order_id)).status == ty.ORDER_STATUS_OPEN
    await spine.cancel(ann, skipped.order_id)
