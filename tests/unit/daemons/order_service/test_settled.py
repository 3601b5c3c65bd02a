"""Who waits for a watermark: woken once it is there, forgotten when they go, and never all by themselves."""

from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import db
from common.core import messages as m
from common.core.errors import Busy, Malformed
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.settled import DEFAULT_MS, MOST_MS, POLL_S, SettledOrders, Watermarks
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as types
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

USD, BTC, ETH = m.Asset(1, "USD", 8), m.Asset(2, "BTC", 8), m.Asset(3, "ETH", 8)
MARKETS = Markets()
MARKETS.fill(
    [
        m.Market(1, "BTC-USD", BTC, USD, 0, 1_000_000, 1_000, 10**8, 10, 20),
        m.Market(2, "ETH-USD", ETH, USD, 1, 1_000_000, 10_000, 10**8, 10, 20),
    ]
)


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("asyncio")


class Database:
    """A pool and its queries: the watermarks are what the test says, an order is settled below them."""

    def __init__(self) -> None:
        self.watermarks = {0: 0, 1: 0}
        self.looks = 0
        self.placed = {1: (0, 5), 2: (1, 9)}  # Order -> partition, sequence.

    @asynccontextmanager
    async def connection(self) -> Any:
        yield self

    async def execute(self, _: str, given: list[list[int]]) -> "Database":
        self.looks += 1
        self.wanted = given[0]
        return self

    async def fetchall(self) -> list[tuple[int, int]]:
        return [(partition, self.watermarks[partition]) for partition in self.wanted]

    async def some(self, user_id: int, order_ids: list[int]) -> list[pb.Order]:
        return [
            pb.Order(
                order_id=order_id,
                user_id=user_id,
                status=types.ORDER_STATUS_OPEN
                if self.watermarks[partition] >= sequence
                else types.ORDER_STATUS_ACCEPTED,
            )
            for order_id in order_ids
            for partition, sequence in [self.placed[order_id]]
        ]


class Desk:
    def __init__(self, most: int = 100) -> None:
        self.database = Database()
        self.watermarks = Watermarks()
        self.settled = SettledOrders(self.watermarks, MARKETS, cast(Queries, self.database), most=most)

    async def ask(self, *order_ids: int, timeout_ms: int = 0, user: int = 7) -> list[int]:
        symbols = {1: "BTC-USD", 2: "ETH-USD"}
        request = pb.AwaitRequest(timeout_ms=timeout_ms)
        for order_id in order_ids:
            sequence = self.database.placed[order_id][1]
            request.accepted.add(order_id=order_id, symbol=symbols[order_id], sequence=sequence)
        return [order.order_id for order in (await self.settled.of(user, request)).orders]

    def settle(self, partition: int, sequence: int) -> None:
        """As the settler of this process does."""
        self.database.watermarks[partition] = sequence
        self.watermarks.reached(partition, sequence)


async def test_the_settler_wakes_who_waits_for_that_much() -> None:
    desk = Desk()
    answers: list[list[int]] = []

    async def ask() -> None:
        answers.append(await desk.ask(1, 2))

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await anyio.sleep(0.1)
        desk.settle(0, 5)
        desk.settle(1, 8)
        await anyio.sleep(0.1)
        assert answers == []
        desk.settle(1, 9)
    assert answers == [[1, 2]]
    assert await desk.ask(1) == [1]  # And at once who comes later.


async def test_when_the_time_is_over_what_is_settled_is_answered() -> None:
    desk = Desk()
    desk.settle(0, 5)
    began_s = anyio.current_time()
    assert await desk.ask(1, 2) == [1]
    assert anyio.current_time() - began_s == pytest.approx(DEFAULT_MS / 1000)
    assert await desk.ask(2, timeout_ms=10) == []


async def test_what_another_process_settles_is_found_by_one_look_for_all() -> None:
    desk = Desk()
    async with anyio.create_task_group() as watching:
        watching.start_soon(desk.watermarks.watch, cast(db.Pool, desk.database))
        await anyio.sleep(10)
        assert desk.database.looks == 0
        async with anyio.create_task_group() as asking:
            for _ in range(10):
                asking.start_soon(desk.ask, 1)
            await anyio.sleep(10.5 * POLL_S)
            looks = desk.database.looks
            assert 9 <= looks <= 11
            desk.database.watermarks[0] = 5
        await anyio.sleep(10)
        assert desk.database.looks <= looks + 2  # Nobody waits: nobody looks.
        watching.cancel_scope.cancel()


@pytest.mark.parametrize(("most", "user"), [(1, 8), (10, 7)])
async def test_no_more_than_so_many_wait_and_who_goes_makes_room(most: int, user: int) -> None:
    desk = Desk(most)
    async with anyio.create_task_group() as group:
        group.start_soon(desk.ask, 1)
        await anyio.sleep(0.1)
        with pytest.raises(Busy):
            await desk.ask(1, user=user)
        if most > 1:
            assert await desk.ask(1, timeout_ms=1, user=8) == []
        group.cancel_scope.cancel()
    assert await desk.ask(1, timeout_ms=1, user=user) == []
    assert all(not waiting for waiting in desk.watermarks._waiting.values())


async def test_at_the_end_nobody_waits() -> None:
    desk = Desk()
    async with anyio.create_task_group() as group:
        group.start_soon(desk.ask, 1)
        await anyio.sleep(0.1)
        desk.settled.end()
    assert anyio.current_time() < DEFAULT_MS / 1000
    assert await desk.ask(2) == []


@pytest.mark.parametrize("timeout_ms", [-1, MOST_MS + 1])
async def test_a_time_out_of_bounds(timeout_ms: int) -> None:
    with pytest.raises(Malformed):
        await Desk().ask(1, timeout_ms=timeout_ms)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=30), st.lists(st.integers(0, 20)))
def test_any_order_of_waits_moves_and_leaves(waits: list[tuple[int, bool]], moves: list[int]) -> None:
    async def run() -> None:
        watermarks, woken = Watermarks(), list[int]()

        async def wait(sequence: int, leaves: bool) -> None:
            with anyio.move_on_after(0.5 if leaves else None):
                await watermarks.wait(0, sequence)
                woken.append(sequence)

        async with anyio.create_task_group() as group:
            for sequence, leaves in waits:
                group.start_soon(wait, sequence, leaves)
            await anyio.sleep(1)
            reached = 0
            for move in moves:
                watermarks.reached(0, move)
                reached = max(reached, move)
                await anyio.sleep(0.1)
                stay = [sequence for sequence, leaves in waits if sequence <= reached and not leaves]
                early = [sequence for sequence, leaves in waits if sequence == 0 and leaves]
                assert sorted(woken) == sorted(stay + early)
            group.cancel_scope.cancel()
        assert not watermarks._waiting.get(0)

    name, options = virtual_time("asyncio")
    anyio.run(run, backend=name, backend_options=options)
