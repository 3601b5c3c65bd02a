"""Waiting for settlements: bounded, and ended by whatever ends it with what there is."""

from contextlib import ExitStack
from typing import Any, cast

import pytest
import trio

from common.core.errors import Busy, Unavailable
from exchange.v1 import orders_pb2 as pb
from gateway.calls import Call
from gateway.inbox import Inbox
from gateway.services import Services
from gateway.settled import SettledWaits
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

ACCEPTED = [pb.Accepted(order_id=1, symbol="BTC-USD", sequence=5)]


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


class Orders:
    """Services whose orders are settled after a second."""

    Await = object()

    def __init__(self) -> None:
        self.orders = self
        self.cancelled = 0
        self.away = False

    async def ask(self, method: object, request: pb.AwaitRequest, call: Call, timeout_s: float) -> Any:
        assert method is self.Await
        if self.away:
            raise Unavailable
        try:
            await trio.sleep(1)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return pb.AwaitResponse(orders=[pb.Order(order_id=one.order_id) for one in request.accepted])


def waits_of(orders: Orders, most: int = 2) -> SettledWaits:
    return SettledWaits(cast(Services, orders), most)


def call(client: Inbox | None = None) -> Call:
    return Call("POST", "/", b"/", b"", [], "r", client=client)


async def test_the_orders_once_they_are_settled() -> None:
    assert list(await waits_of(Orders()).orders(call(Inbox()), ACCEPTED, 2_000)) == [1]


async def test_an_order_service_that_is_away_is_no_error() -> None:
    orders = Orders()
    orders.away = True
    assert await waits_of(orders).orders(call(), ACCEPTED, 2_000) == {}


@pytest.mark.parametrize("gone", [False, True])
async def test_a_client_that_closes_its_side_ends_the_wait(gone: bool) -> None:
    orders, inbox = Orders(), Inbox()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await trio.sleep(0.1)
            if gone:
                await inbox.put({"type": "http.disconnect"})
            else:
                inbox.leave()

        nursery.start_soon(leave)
        assert await waits_of(orders).orders(call(inbox), ACCEPTED, 2_000) == {}
    assert (orders.cancelled, trio.current_time()) == (1, 0.1)


async def test_a_drain_ends_all_waits() -> None:
    orders = Orders()
    waits = waits_of(orders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits.orders, call(), ACCEPTED, 2_000)
        nursery.start_soon(waits.orders, call(Inbox()), ACCEPTED, 2_000)
        await trio.sleep(0.1)
        waits.end()
    assert orders.cancelled == 2
    assert await waits.orders(call(), ACCEPTED, 2_000) == {}


async def test_who_finds_no_room_hears_so_first() -> None:
    waits = waits_of(Orders(), most=11)  # One user may have two of them.
    with waits.room(1), waits.room(1):
        with pytest.raises(Busy, match="nothing was done"), waits.room(1):
            pass
        with ExitStack() as others:
            for user in range(2, 11):
                others.enter_context(waits.room(user))
            with pytest.raises(Busy), waits.room(12):
                pass
        with waits.room(12):
            pass
    with waits.room(1):
        pass
