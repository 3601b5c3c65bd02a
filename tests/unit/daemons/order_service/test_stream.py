"""A stream of orders: read ahead within bounds, placed and answered in the order of its messages."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from common.core import errors
from daemons.order_service.committer import Committer, Submitted
from daemons.order_service.markets import Markets
from daemons.order_service.relay import Relays
from daemons.order_service.requests import Accepted, NewOrder
from daemons.order_service.stream import AHEAD_MESSAGES, AHEAD_ORDERS, answer_stream
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

ANN = 1001
UNREADABLE = pb.NewOrder(symbol="BTC-USD", client_order_id="unreadable")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


def order(name: str) -> pb.NewOrder:
    return pb.NewOrder(
        symbol="BTC-USD",
        side=ty.SIDE_BUY,
        type=ty.ORDER_TYPE_LIMIT,
        price_ticks=1,
        qty_lots=1,
        client_order_id=name,
    )


def message(*names: str) -> pb.SubmitStreamRequest:
    return pb.SubmitStreamRequest(orders=[order(name) for name in names])


def names(unit: Submitted) -> list[str]:
    return [request.client_order_id for request in unit.requests if isinstance(request, NewOrder)]


@dataclass
class Talk:
    """A client's side of one stream, and a committer whose transactions the test runs by hand."""

    committer: Committer
    sent: int = 0
    answers: list[list[str]] = field(default_factory=list)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    failure: Exception | None = None
    ended: anyio.Event = field(default_factory=anyio.Event)

    def queued(self) -> list[list[str]]:
        return [names(unit) for unit in self.committer._units]

    async def commit(self) -> None:
        """One transaction that accepts everything."""
        accept(await self.committer._next_batch())
        await anyio.wait_all_tasks_blocked()

    async def write(self, response: pb.SubmitStreamResponse) -> None:
        self.answers.append(
            [one.error.code or one.accepted.client_order_id for one in response.results],
        )


def accept(units: list[Submitted]) -> None:
    for unit in units:
        unit.answer([Accepted(7, name, "BTC-USD", 1, 1) for name in names(unit)])


@asynccontextmanager
async def talking(
    messages: list[pb.SubmitStreamRequest],
    *,
    ends: bool = True,
    queue_requests: int = 10_000,
    batch_requests: int = 1_000,
) -> AsyncIterator[Talk]:
    """The stream has read what it will when the body begins; the body ends it, or it ends by itself."""
    talk = Talk(
        Committer("", Markets(), Relays(1), batch_requests=batch_requests, queue_requests=queue_requests)
    )

    async def requests() -> AsyncGenerator[pb.SubmitStreamRequest, None]:
        for one in messages:
            talk.sent += 1
            yield one
        if not ends:
            await anyio.sleep_forever()

    async def serve() -> None:
        with talk.scope:
            try:
                async with aclosing(requests()) as given:
                    await answer_stream(ANN, given, talk.write, talk.committer)
            except errors.ExchangeError as error:
                talk.failure = error
        talk.ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(serve)
        await anyio.wait_all_tasks_blocked()
        yield talk
        await anyio.wait_all_tasks_blocked()
        talk.scope.cancel()


async def test_messages_share_a_transaction_and_are_answered_in_their_order() -> None:
    async with talking([message("a", "b"), message("c"), message("d")]) as talk:
        assert talk.queued() == [["a", "b"], ["c"], ["d"]]
        assert talk.answers == []
        await talk.commit()
        assert talk.answers == [["a", "b"], ["c"], ["d"]]
        assert talk.ended.is_set()


async def test_an_answer_waits_for_those_before_it() -> None:
    async with talking([message("a"), message("b")]) as talk:
        first, second = await talk.committer._next_batch()
        accept([second])
        await anyio.wait_all_tasks_blocked()
        assert talk.answers == []
        accept([first])
        await anyio.wait_all_tasks_blocked()
        assert talk.answers == [["a"], ["b"]]


async def test_a_message_that_comes_later_is_answered_too() -> None:
    """Each of the two tasks waits for the other by turns."""
    half = AHEAD_ORDERS // 2
    one, many = message("a"), message(*["b"] * half)
    async with talking([one, many, many, many, one], batch_requests=1) as talk:
        for _ in range(5):
            await talk.commit()
        assert [len(answer) for answer in talk.answers] == [1, half, half, half, 1]
        assert talk.ended.is_set()


async def test_a_stream_that_is_full_reads_no_further() -> None:
    async with talking([message(str(n)) for n in range(AHEAD_MESSAGES + 5)], batch_requests=1) as talk:
        assert len(talk.queued()) == AHEAD_MESSAGES
        assert talk.sent == AHEAD_MESSAGES + 1  # One is in hand.
        await talk.commit()
        assert len(talk.queued()) == AHEAD_MESSAGES
        assert talk.sent == AHEAD_MESSAGES + 2
        while not talk.ended.is_set():
            await talk.commit()
        assert talk.answers == [[str(n)] for n in range(AHEAD_MESSAGES + 5)]


async def test_many_orders_fill_a_stream_before_many_messages_do() -> None:
    half = AHEAD_ORDERS // 2
    async with talking([message(*["a"] * half)] * 4, batch_requests=1) as talk:
        assert len(talk.queued()) == 2
        await talk.commit()
        assert len(talk.queued()) == 2
        assert talk.committer._queued == AHEAD_ORDERS


async def test_what_cannot_be_placed_is_refused_in_its_place() -> None:
    bad = pb.SubmitStreamRequest(orders=[order("b"), UNREADABLE, order("c")])
    all_bad = pb.SubmitStreamRequest(orders=[UNREADABLE])
    async with talking([message("a"), bad, all_bad, message("d")]) as talk:
        assert talk.queued() == [["a"], ["b", "c"], ["d"]]
        [a, bc, d] = await talk.committer._next_batch()
        accept([a, d])
        bc.answer([Accepted(7, "b", "BTC-USD", 1, 1), errors.InsufficientFunds()])
        await anyio.wait_all_tasks_blocked()
        assert talk.answers == [
            ["a"],
            ["b", "MALFORMED", "INSUFFICIENT_FUNDS"],
            ["MALFORMED"],
            ["d"],
        ]


async def test_a_full_queue_is_busy_for_that_message_alone() -> None:
    async with talking([message("a"), message("b", "c"), message("d")], queue_requests=2) as talk:
        assert talk.queued() == [["a"], ["d"]]
        await talk.commit()
        assert talk.answers == [["a"], ["BUSY", "BUSY"], ["d"]]
        assert talk.ended.is_set()
        assert talk.failure is None


@pytest.mark.parametrize("orders", [0, 1_001])
async def test_a_malformed_message_ends_the_stream_after_what_came_before(orders: int) -> None:
    async with talking([message("a"), message(*["b"] * orders), message("c")], ends=False) as talk:
        assert talk.queued() == [["a"]]
        assert not talk.ended.is_set()
        await talk.commit()
        assert talk.answers == [["a"]]
        assert talk.ended.is_set()
        assert isinstance(talk.failure, errors.Malformed)


async def test_a_stream_on_a_server_that_stops_ends_after_what_was_taken() -> None:
    async with talking([message("a")] * (AHEAD_MESSAGES + 2)) as talk:
        talk.committer.finish()
        await talk.commit()
        assert len(talk.answers) == AHEAD_MESSAGES
        assert talk.ended.is_set()
        assert isinstance(talk.failure, errors.Unavailable)


async def test_of_a_stream_that_is_cancelled_only_what_stands_in_a_transaction_is_placed() -> None:
    async with talking([message("a"), message("b"), message("c")], ends=False, batch_requests=1) as talk:
        [first] = await talk.committer._next_batch()
        talk.scope.cancel()
        await talk.ended.wait()
        accept([first])
        talk.committer.finish()
        assert await talk.committer._next_batch() == []
        assert talk.committer._queued == 0
        assert talk.answers == []


async def test_a_client_that_cannot_be_written_to_ends_the_stream() -> None:
    committer = Committer("", Markets(), Relays(1), batch_requests=1, queue_requests=10)

    async def requests() -> AsyncGenerator[pb.SubmitStreamRequest, None]:
        for name in ("a", "b"):
            yield message(name)
        await anyio.sleep_forever()

    async def gone(response: pb.SubmitStreamResponse) -> None:
        raise ConnectionError

    async def commit() -> None:
        accept(await committer._next_batch())

    async with anyio.create_task_group() as group:
        group.start_soon(commit)
        with pytest.raises(ExceptionGroup) as caught:
            async with aclosing(requests()) as given:
                await answer_stream(ANN, given, gone, committer)
    assert [type(one) for one in caught.value.exceptions] == [ConnectionError]
    committer.finish()
    assert await committer._next_batch() == []
