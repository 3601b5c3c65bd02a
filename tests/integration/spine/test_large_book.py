"""One command that touches more orders than a replica applies at once: it must not cost the lease."""

import pytest

from daemons.matching.replica import APART_FROM
from exchange.v1 import types_pb2 as ty
from tests.integration.spine.spine import BUY, SELL, Spine, order

pytestmark = pytest.mark.anyio

BATCH, PRICE, LOTS = 1_000, 5_000_000, 10


async def test_a_sweep_of_a_large_book_is_settled_by_the_same_leader(spine: Spine) -> None:
    maker, taker = await spine.join(), await spine.join()
    makers = APART_FROM + 2 * BATCH
    for start in range(0, makers, BATCH):
        await spine.place(maker, *(order(SELL, PRICE + start + n, LOTS) for n in range(BATCH)))
    await spine.settled()
    leader = await spine.leader("matching", 0)
    [sweep] = await spine.place(taker, order(BUY, PRICE + makers, LOTS * (makers - BATCH)))
    await spine.cancel_all(maker)
    await spine.settled()
    assert (await spine.order(taker, sweep.order_id)).status == ty.ORDER_STATUS_FILLED
    assert await spine.leader("matching", 0) == leader
