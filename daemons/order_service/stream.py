"""One SubmitStream: read ahead, so that its messages share transactions, and answered in order.

Each message is put into the committer's queue as soon as it was read, so a user's orders are placed in the
order of their messages. What was read and is not answered is bounded: a full stream stops reading, and gRPC
then stops its client. A message that finds the committer's queue full is answered Busy in its place, and the
stream goes on; an error of the message itself ends the stream, after everything before it was answered.

Does not promise: that what a client sent before it went away is placed. What stands in no transaction yet
then is not: its client may ask elsewhere by now.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from common.core.errors import Busy, ExchangeError
from daemons.order_service.committer import Committer, Submitted
from daemons.order_service.requests import NewOrder
from daemons.order_service.translate import BATCH_MOST, fill_results, read_batch
from exchange.v1 import orders_pb2 as pb

AHEAD_MESSAGES, AHEAD_ORDERS = 64, 2_000  # Of one stream, read and not answered yet.
assert BATCH_MOST <= AHEAD_ORDERS  # Every message fits when nothing else is there.

Write = Callable[[pb.SubmitStreamResponse], Awaitable[None]]


async def answer_stream(
    user_id: int, requests: AsyncIterator[pb.SubmitStreamRequest], write: Write, committer: Committer
) -> None:
    """Serve one stream to its end; raises the ExchangeError that ended it, or a group of what failed."""
    stream = _Stream(committer)
    failure: ExchangeError | None = None
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(stream.read, user_id, requests)
            failure = await stream.answer(write)
    finally:
        stream.abandon()
    if failure is not None:
        raise failure


@dataclass(slots=True)
class _Message:
    """What was read of it, and what the committer has of that; `refused`: it would not take any of it."""

    orders: Sequence[NewOrder | ExchangeError]
    submitted: Submitted | None
    refused: Busy | None = None

    async def response(self) -> pb.SubmitStreamResponse:
        placed = iter(await self.submitted.wait() if self.submitted else ())
        response = pb.SubmitStreamResponse()
        fill_results(
            response,
            [
                order if isinstance(order, ExchangeError) else self.refused or next(placed)
                for order in self.orders
            ],
        )
        return response


class _Stream:
    """The messages that were read and are not answered yet, oldest first, between two tasks."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._messages: deque[_Message] = deque()
        self._orders = 0
        self._changed = anyio.Event()
        self._read_all = False
        self._failure: ExchangeError | None = None

    async def read(self, user_id: int, requests: AsyncIterator[pb.SubmitStreamRequest]) -> None:
        """Submit what comes until the client ends the stream, or a message that cannot be taken does."""
        try:
            async for request in requests:
                orders = read_batch(user_id, request.orders)
                while self._is_full(len(orders)):
                    await self._until_changed()
                self._messages.append(self._submit(orders))
                self._orders += len(orders)
                self._changed.set()
        except ExchangeError as error:
            self._failure = error
        self._read_all = True
        self._changed.set()

    async def answer(self, write: Write) -> ExchangeError | None:
        """Answer in the order of the messages until nothing comes any more; gives what ended the reading."""
        while True:
            while not self._messages:
                if self._read_all:
                    return self._failure
                await self._until_changed()
            message = self._messages[0]
            await write(await message.response())
            self._messages.popleft()
            self._orders -= len(message.orders)
            self._changed.set()

    def abandon(self) -> None:
        """Nobody waits for the answers that are missing."""
        for message in self._messages:
            if message.submitted is not None:
                message.submitted.abandon()

    def _is_full(self, more: int) -> bool:
        return len(self._messages) >= AHEAD_MESSAGES or self._orders + more > AHEAD_ORDERS

    def _submit(self, orders: Sequence[NewOrder | ExchangeError]) -> _Message:
        requests = [order for order in orders if not isinstance(order, ExchangeError)]
        try:
            return _Message(orders, self._committer.enqueue(requests) if requests else None)
        except Busy as busy:
            return _Message(orders, None, busy)

    async def _until_changed(self) -> None:
        """Only one of the two tasks can wait: the one when there are no messages, the other when too many."""
        self._changed = anyio.Event()
        await self._changed.wait()
