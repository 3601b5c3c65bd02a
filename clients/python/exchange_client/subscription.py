"""One reader's place in a stream: a bounded buffer of events, and what ends or interrupts it. No I/O."""

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

from exchange_client.errors import ExchangeError, SlowConsumer
from exchange_client.events import Event


class Subscription:
    """An asynchronous iterator of events, for one task. `stream.subscribe` makes it.

    Raises SlowConsumer when more than `limit` events waited: they are dropped, and reading on begins with
    new snapshots. Raises the Refusal when the exchange does not give the channels. Ends with the stream, or
    with `close`, which leaving it as a context manager calls.
    """

    def __init__(
        self,
        channels: tuple[str, ...],
        limit: int,
        again: Callable[["Subscription"], None],
        leave: Callable[["Subscription"], None],
    ) -> None:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        self.channels = channels
        self._limit = limit
        self._again = again
        self._leave = leave
        self._buffer: deque[Event] = deque()
        self._dropped = 0
        self._failure: ExchangeError | None = None
        self._closed = False
        self._wake = anyio.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while True:
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                self._again(self)
                raise SlowConsumer(dropped)
            if self._buffer:
                return self._buffer.popleft()
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            self._wake = anyio.Event()
            await self._wake.wait()

    def close(self) -> None:
        """Leave its channels; the loop over it ends when it has read what waits."""
        if not self._closed:
            self._closed = True
            self._leave(self)
            self._wake.set()

    # ---- for the stream -------------------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Keep it for the reader, or count it as dropped with all that waits."""
        if self._closed or self._failure is not None:
            return
        if self._dropped or len(self._buffer) >= self._limit:
            self._dropped += len(self._buffer) + 1
            self._buffer.clear()
        else:
            self._buffer.append(event)
        self._wake.set()

    def fail(self, error: ExchangeError) -> None:
        """Nothing more will come, from its other channels neither."""
        if self._failure is None:
            self._failure = error
            self._leave(self)
            self._wake.set()
