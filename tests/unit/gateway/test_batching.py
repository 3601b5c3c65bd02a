"""Natural batching, in virtual time: what shares a call, in which order, and what happens when it fails."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from common.core.errors import Busy, ExchangeError, InsufficientFunds, Unavailable
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import orders_pb2 as pb
from gateway.batching import SIZE_SHARE, OrderBatcher
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

CALL_S = 1.0


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


class SlowService:
    """Answers after CALL_S and keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, str]]] = []
        self.error: ExchangeError | None = None
        self.at_once = self.most_at_once = 0

    async def place(self, request: internal.PlaceRequest, _: str) -> internal.PlaceResponse:
        self.calls.append([(one.user_id, one.order.client_order_id) for one in request.orders])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await trio.sleep(CALL_S)
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return internal.PlaceResponse(
            results=[
                pb.SubmitResult(accepted=pb.Accepted(client_order_id=one.order.client_order_id))
                for one in request.orders
            ]
        )


def orders(*names: str) -> list[pb.NewOrder]:
    return [pb.NewOrder(client_order_id=name) for name in names]


async def run_with(batcher: OrderBatcher, body: Callable[[trio.Nursery], Awaitable[None]]) -> None:
    """Run `body(nursery)` with the batcher; returns when what the body started has ended."""
    async with trio.open_nursery() as working:
        working.start_soon(batcher.run)
        async with trio.open_nursery() as nursery:
            await body(nursery)
        working.cancel_scope.cancel()


def one_lane(service: SlowService, batch_orders: int = 100, queue_orders: int = 100) -> OrderBatcher:
    return OrderBatcher(service.place, batch_orders=batch_orders, queue_orders=queue_orders, lanes=1)


async def test_a_lone_order_leaves_at_once_and_alone() -> None:
    service = SlowService()
    batcher = one_lane(service)

    async def body(_: trio.Nursery) -> None:
        started = trio.current_time()
        results = await batcher.submit(1, orders("a"), "r")
        assert [result.accepted.client_order_id for result in results] == ["a"]
        assert trio.current_time() - started == pytest.approx(CALL_S)

    await run_with(batcher, body)
    assert service.calls == [[(1, "a")]]


async def test_what_arrives_during_a_call_shares_the_next_one_in_order() -> None:
    service = SlowService()
    batcher = one_lane(service)
    heard: list[str] = []

    async def ask(user_id: int, *names: str) -> None:
        results = await batcher.submit(user_id, orders(*names), "r")
        assert [result.accepted.client_order_id for result in results] == list(names)
        heard.extend(names)

    async def body(nursery: trio.Nursery) -> None:
        nursery.start_soon(ask, 1, "first")
        await trio.sleep(CALL_S / 10)
        for n in range(4):
            nursery.start_soon(ask, n % 2, f"{n}", f"{n}+")
            await trio.sleep(CALL_S / 10)

    await run_with(batcher, body)
    assert service.calls == [
        [(1, "first")],
        [(0, "0"), (0, "0+"), (1, "1"), (1, "1+"), (0, "2"), (0, "2+"), (1, "3"), (1, "3+")],
    ]
    assert heard[0] == "first"
    assert len(heard) == 9


async def test_a_call_holds_at_most_batch_orders_and_never_splits_a_request() -> None:
    service = SlowService()
    batcher = one_lane(service, batch_orders=5)

    async def body(nursery: trio.Nursery) -> None:
        nursery.start_soon(batcher.submit, 1, orders("first"), "r")
        await trio.sleep(CALL_S / 2)
        for size in (3, 3, 7, 1):
            nursery.start_soon(batcher.submit, 1, orders(*["x"] * size), "r")
            await trio.sleep(0.01)

    await run_with(batcher, body)
    assert [len(call) for call in service.calls] == [1, 3, 3, 7, 1]


async def test_a_full_queue_is_busy_and_does_nothing() -> None:
    service = SlowService()
    batcher = one_lane(service, queue_orders=3)

    async def body(nursery: trio.Nursery) -> None:
        nursery.start_soon(batcher.submit, 1, orders("under way"), "r")
        await trio.sleep(CALL_S / 10)
        nursery.start_soon(batcher.submit, 1, orders("a", "b", "c"), "r")
        await trio.sleep(CALL_S / 10)
        with pytest.raises(Busy):
            await batcher.submit(1, orders("d"), "r")
        await trio.sleep(CALL_S)
        await batcher.submit(1, orders("e"), "r")

    await run_with(batcher, body)
    assert [name for call in service.calls for _, name in call] == ["under way", "a", "b", "c", "e"]


async def test_a_huge_batch_delays_the_others_by_its_own_call_alone() -> None:
    service = SlowService()
    batcher = one_lane(service, batch_orders=1_000, queue_orders=5_000)
    heard_s: list[float] = []

    async def ask(user_id: int) -> None:
        await batcher.submit(user_id, orders("single"), "r")
        heard_s.append(trio.current_time())

    async def body(nursery: trio.Nursery) -> None:
        nursery.start_soon(batcher.submit, 1, orders("under way"), "r")
        await trio.sleep(CALL_S / 2)
        nursery.start_soon(batcher.submit, 1, orders(*["huge"] * 1_000), "r")
        await trio.sleep(CALL_S / 10)
        asked_s = trio.current_time()
        async with trio.open_nursery() as asking:
            for user_id in range(2, 52):
                asking.start_soon(ask, user_id)
        assert max(heard_s) - asked_s <= 3 * CALL_S  # What was under way, the huge one, their own.

    await run_with(batcher, body)
    assert [len(call) for call in service.calls] == [1, 1_000, 50]


async def test_singles_that_never_end_do_not_starve_a_huge_batch() -> None:
    service = SlowService()
    batcher = one_lane(service, batch_orders=1_000, queue_orders=5_000)

    async def body(nursery: trio.Nursery) -> None:
        async def keep_asking() -> None:
            while True:
                await batcher.submit(2, orders("single"), "r")

        async with trio.open_nursery() as asking:
            for _ in range(50):
                asking.start_soon(keep_asking)
            await trio.sleep(CALL_S * 2.5)
            asked_s = trio.current_time()
            await batcher.submit(1, orders(*["huge"] * 1_000), "r")
            assert trio.current_time() - asked_s <= 3 * CALL_S
            asking.cancel_scope.cancel()

    await run_with(batcher, body)
    assert max(len(call) for call in service.calls) == 1_000


async def test_everybody_in_a_call_that_fails_hears_so_and_the_next_call_goes_out() -> None:
    service = SlowService()
    batcher = one_lane(service)
    errors: list[Unavailable] = []

    async def ask(name: str) -> None:
        with pytest.raises(Unavailable) as refused:
            await batcher.submit(1, orders(name), "r")
        errors.append(refused.value)

    async def body(nursery: trio.Nursery) -> None:
        service.error = Unavailable("gone")
        async with trio.open_nursery() as asking:
            for name in "abc":
                asking.start_soon(ask, name)
        service.error = InsufficientFunds("as if")
        with pytest.raises(InsufficientFunds):
            await batcher.submit(1, orders("d"), "r")
        service.error = None
        await batcher.submit(1, orders("e"), "r")

    await run_with(batcher, body)
    assert len(errors) == 3
    assert len(set(map(id, errors))) == 3  # A traceback belongs to one task.
    assert all("same client_order_id" in error.message for error in errors)


async def test_an_order_whose_request_was_cancelled_in_the_queue_is_not_sent() -> None:
    service = SlowService()
    batcher = one_lane(service)

    async def body(nursery: trio.Nursery) -> None:
        nursery.start_soon(batcher.submit, 1, orders("under way"), "r")
        await trio.sleep(CALL_S / 10)
        with trio.move_on_after(CALL_S / 10):
            await batcher.submit(1, orders("cancelled"), "r")
        await batcher.submit(1, orders("last"), "r")

    await run_with(batcher, body)
    assert service.calls == [[(1, "under way")], [(1, "last")]]


async def test_lanes_run_side_by_side_and_a_user_keeps_to_one() -> None:
    service = SlowService()
    batcher = OrderBatcher(service.place, batch_orders=100, queue_orders=100, lanes=2)

    async def body(nursery: trio.Nursery) -> None:
        for n in range(20):
            nursery.start_soon(batcher.submit, n % 4, orders(f"{n}"), "r")
            await trio.sleep(CALL_S / 7)

    await run_with(batcher, body)
    assert service.most_at_once == 2
    for user_id in range(4):
        sent = [int(name) for call in service.calls for one, name in call if one == user_id]
        assert sent == sorted(sent)


async def test_the_wait_is_told_by_what_waits_and_how_fast_it_went() -> None:
    service = SlowService()
    batcher = one_lane(service, batch_orders=10)
    names = [str(number) for number in range(10)]

    async def body(nursery: trio.Nursery) -> None:
        assert batcher.wait_s() == 0
        for _ in range(3):
            nursery.start_soon(batcher.submit, 1, orders(*names), "r")
        await trio.sleep(CALL_S * 0.5)
        # Ten are under way, twenty wait; how fast it goes is not known yet.
        assert batcher.wait_s() == pytest.approx(CALL_S * 0.5)
        await trio.sleep(CALL_S)
        assert batcher.wait_s() == pytest.approx(CALL_S * 1.5)  # The oldest of the last ten.
        for _ in range(2):
            nursery.start_soon(batcher.submit, 1, orders(*names), "r")
        await trio.sleep(0.001)
        assert batcher.wait_s() == pytest.approx(CALL_S * 3, rel=0.01)  # Thirty, at ten a call.
        usual = 1.0
        for _ in range(5):
            usual += SIZE_SHARE * (10 - usual)
        assert batcher.wait_s(2) == pytest.approx(CALL_S * (3 + 2 * usual / 10), rel=0.01)

    await run_with(batcher, body)
    assert batcher.wait_s() == 0
