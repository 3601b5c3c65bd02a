"""Concurrent questions share calls: natural batching, without timers.

While a call is under way, what is asked forms the next one; a question that comes alone leaves at once.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from common.core.errors import Busy, ExchangeError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True, eq=False)
class _Asked(Generic[T, R]):
    """A question and who waits for its answer."""

    question: T
    ended: trio.Event = field(default_factory=trio.Event)
    answers: Sequence[R] = ()  # One, when there is no error.
    error: ExchangeError | None = None
    abandoned: bool = False


class Gather(Generic[T, R]):
    """Asks through `carry(questions)`, which gives an answer for each, while `run` runs."""

    def __init__(
        self, carry: Callable[[list[T]], Awaitable[Sequence[R]]], *, most: int, most_waiting: int
    ) -> None:
        """`most`: questions in one call."""
        assert 0 < most <= most_waiting
        self._carry = carry
        self._most = most
        self._most_waiting = most_waiting
        self._waiting: deque[_Asked[T, R]] = deque()
        self._filled = trio.Event()

    async def ask(self, question: T) -> R:
        """Raises what the call raised, and Busy when too many wait already."""
        if len(self._waiting) >= self._most_waiting:
            raise Busy("Too many requests are waiting; nothing was done with this one. Send it again.")
        asked: _Asked[T, R] = _Asked(question)
        self._waiting.append(asked)
        self._filled.set()
        try:
            await asked.ended.wait()
        finally:
            asked.abandoned = True
        if asked.error is not None:
            raise asked.error
        return asked.answers[0]

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            await self._filled.wait()
            batch: list[_Asked[T, R]] = []
            while self._waiting and len(batch) < self._most:
                asked = self._waiting.popleft()
                if not asked.abandoned:
                    batch.append(asked)
            if not self._waiting:
                self._filled = trio.Event()
            if batch:
                await self._call(batch)

    async def _call(self, batch: list[_Asked[T, R]]) -> None:
        try:
            answers = await self._carry([asked.question for asked in batch])
            if len(answers) != len(batch):
                raise ExchangeError("The service sent another number of answers.")
            for asked, answer in zip(batch, answers, strict=True):
                asked.answers = (answer,)
        except ExchangeError as error:
            for asked in batch:  # Each raises one of its own, since a traceback belongs to one task.
                asked.error = type(error)(error.message, error.details)
        finally:
            for asked in batch:
                asked.ended.set()
