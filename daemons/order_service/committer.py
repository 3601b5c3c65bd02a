"""Natural batching of TX1: what arrives while a transaction runs forms the next one. No timers.

An idle exchange gives a batch of one at once; a busy one shares a commit among hundreds. The queue is
bounded: a full one answers Busy instead of growing.

Does not promise: an answer. When PostgreSQL stays away, the caller hears Unavailable within about twice
`GIVE_UP_S`, and what became of its order is found by sending the same client_order_id again.
"""

from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

import anyio
import psycopg
from anyio.abc import TaskStatus
from prometheus_client import Counter, Gauge, Histogram

from common import db
from common.core.errors import Busy, ExchangeError, Unavailable
from common.telemetry import get_logger
from daemons.order_service.backlog import Backlog
from daemons.order_service.markets import Markets
from daemons.order_service.placement import Doubt, Placement
from daemons.order_service.relay import Relays
from daemons.order_service.requests import Answer, Request

BLOCK = 1_000  # Order ids that one value of the sequence stands for; its INCREMENT.
BLOCKS = 8  # Taken at once, so that few batches pay the round trip; what a restart loses are numbers.
GIVE_UP_S = 4.0
RETRY_S = 0.05

BATCH = Histogram(
    "exchange_tx1_batch_requests",
    "Requests in one TX1",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000),
)
SECONDS = Histogram(
    "exchange_tx1_seconds",
    "Duration of one TX1",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 2, 4),
)
QUEUED = Gauge("exchange_tx1_queued_requests", "Requests that wait for a TX1")
RETRIES = Counter("exchange_tx1_retries_total", "TX1 that PostgreSQL made run again", ["cause"])
REFUSED = Counter("exchange_tx1_refusals_total", "Requests that TX1 refused", ["code"])

log = get_logger(__name__)


@dataclass(slots=True)
class Submitted:
    """Requests that came together, and go into one transaction together."""

    requests: Sequence[Request]
    since_s: float = field(default_factory=anyio.current_time)
    abandoned: bool = False  # Its caller has gone, perhaps to ask elsewhere.
    _answers: list[Answer] | None = None
    _answered: anyio.Event | None = None  # Made when somebody waits: most of a stream's need none.

    async def wait(self) -> list[Answer]:
        """The answers, one for each request. Who is cancelled meanwhile has gone."""
        if self._answers is None:
            self._answered = self._answered or anyio.Event()
            try:
                await self._answered.wait()
            except anyio.get_cancelled_exc_class():
                self.abandon()
                raise
        assert self._answers is not None
        return self._answers

    def abandon(self) -> None:
        """What is in no transaction yet will be in none."""
        self.abandoned = True

    def answer(self, answers: list[Answer]) -> None:
        self._answers = answers
        if self._answered is not None:
            self._answered.set()


class Committer:
    """Owns the session of TX1. `run` works until `finish` was called and everything is answered."""

    def __init__(
        self,
        postgres_url: str,
        markets: Markets,
        relays: Relays,
        *,
        batch_requests: int,
        queue_requests: int,
        backlog: Backlog | None = None,
    ) -> None:
        self._postgres_url = postgres_url
        self._markets = markets
        self._relays = relays
        self._backlog = backlog
        self._batch_requests = batch_requests
        self._queue_requests = queue_requests
        self._units: deque[Submitted] = deque()
        self._queued = 0
        self._arrived = anyio.Event()
        self._finishing = False

    async def submit(self, requests: Sequence[Request]) -> list[Answer]:
        """Give the requests to the next transaction and wait for their answers, one for each."""
        return await self.enqueue(requests).wait()

    def enqueue(self, requests: Sequence[Request]) -> Submitted:
        """Give the requests to the next transaction, after all that came before them.

        Raises Busy when too many wait already, and Unavailable when nothing new is taken any more.
        """
        if self._finishing:
            raise Unavailable("This order-service is stopping; send the request again")
        if self._queued + len(requests) > self._queue_requests:
            raise Busy(f"{self._queued} requests wait already")
        unit = Submitted(requests)
        self._units.append(unit)
        self._count(len(requests))
        self._arrived.set()
        return unit

    def finish(self) -> None:
        """Take nothing new; `run` ends when what was accepted is answered."""
        self._finishing = True
        self._arrived.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """One transaction after the other, until `finish` was called and everything is answered."""
        task_status.started()
        async with _Session(self._postgres_url, self._markets, self._backlog) as session:
            while units := await self._next_batch():
                await self._answer(session, units)

    async def _next_batch(self) -> list[Submitted]:
        """Wait for requests: whole units, at least one, up to the size of a batch. Empty: finished."""
        self._drop_stale()
        while not self._units:
            if self._finishing:
                return []
            self._arrived = anyio.Event()
            await self._arrived.wait()
            self._drop_stale()
        units = [self._units.popleft()]
        size = len(units[0].requests)
        while self._units and size + len(self._units[0].requests) <= self._batch_requests:
            units.append(self._units.popleft())
            size += len(units[-1].requests)
        self._count(-size)
        return units

    def _drop_stale(self) -> None:
        """Those whose caller has gone, which may have had another answer elsewhere by now, and those that
        have waited too long: while PostgreSQL hangs, a full queue would have to wait for each batch's end.
        """
        oldest_s = anyio.current_time() - GIVE_UP_S
        late = [unit for unit in self._units if unit.since_s < oldest_s]
        if late or any(unit.abandoned for unit in self._units):
            left = (unit for unit in self._units if not unit.abandoned and unit.since_s >= oldest_s)
            self._units = deque(left)
            self._count(sum(len(unit.requests) for unit in self._units) - self._queued)
        for unit in late:
            _deliver([unit], [Unavailable("The database is behind; nothing was done")] * len(unit.requests))

    async def _answer(self, session: "_Session", units: list[Submitted]) -> None:
        """Run the batch until it has answers, through lost connections, for at most `GIVE_UP_S`."""
        requests = [request for unit in units for request in unit.requests]
        BATCH.observe(len(requests))
        refused: psycopg.Error | None = None
        with anyio.move_on_after(GIVE_UP_S), SECONDS.time():
            doubt: Doubt | None = None
            while refused is None:
                try:
                    _deliver(units, await self._run_once(session, requests, doubt))
                    return
                except psycopg.Error as error:
                    doubt = session.doubt or doubt
                    await session.drop()
                    if db.is_transient(error):
                        RETRIES.labels(error.sqlstate or "connection").inc()
                        log.warning("TX1 runs again", error=str(error))
                        await anyio.sleep(RETRY_S)
                    else:
                        refused = error
        if refused is not None:
            await self._answer_apart(session, units, refused)
            return
        await session.drop()
        _deliver(units, [Unavailable("The database does not answer")] * len(requests))

    async def _run_once(
        self, session: "_Session", requests: Sequence[Request], doubt: Doubt | None
    ) -> list[Answer]:
        placement = await session.placement()
        if doubt is not None and await placement.did_commit(doubt):
            return doubt.answers  # The relays find it when they next poll.
        committed = await placement.commit(requests, await session.take_ids(len(requests)))
        self._relays.wake(*committed.partitions)
        return committed.answers

    async def _answer_apart(self, session: "_Session", units: list[Submitted], error: psycopg.Error) -> None:
        """A batch that PostgreSQL refuses for good: halve it until the request that it is stands alone.

        A unit is halved too: the gateway's has the orders of many users.
        """
        log.error("TX1 failed", error=str(error), requests=sum(len(unit.requests) for unit in units))
        if len(units) > 1:
            middle = len(units) // 2
            await self._answer(session, units[:middle])
            await self._answer(session, units[middle:])
            return
        [unit] = units
        if len(unit.requests) == 1:
            _deliver(units, [ExchangeError("The order could not be written")])
            return
        middle = len(unit.requests) // 2
        halves = Submitted(unit.requests[:middle]), Submitted(unit.requests[middle:])
        for half in halves:
            await self._answer(session, [half])
        unit.answer([answer for half in halves for answer in await half.wait()])

    def _count(self, more: int) -> None:
        self._queued += more
        QUEUED.set(self._queued)


class _Session:
    """The session that TX1 runs on, opened when it is needed, and the order ids taken from it."""

    def __init__(self, postgres_url: str, markets: Markets, backlog: Backlog | None) -> None:
        self._postgres_url = postgres_url
        self._markets = markets
        self._backlog = backlog
        self._stack = AsyncExitStack()
        self._placement: Placement | None = None
        self._order_ids: deque[int] = deque()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.drop()

    @property
    def doubt(self) -> Doubt | None:
        """What a commit that was sent and not answered may have done."""
        return self._placement.doubt if self._placement else None

    async def placement(self) -> Placement:
        if self._placement is None:
            connection = await self._stack.enter_async_context(
                db.connect(self._postgres_url, "order-service tx1", by_key=True)
            )
            self._placement = Placement(connection, self._markets, self._backlog)
        return self._placement

    async def drop(self) -> None:
        self._placement = None
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def take_ids(self, count: int) -> list[int]:
        """Ids from blocks of the sequence; those of a block that is lost are never used, which is fine."""
        placement = await self.placement()
        while len(self._order_ids) < count:
            for first in await placement.next_blocks(BLOCKS):
                self._order_ids.extend(range(first, first + BLOCK))
        return [self._order_ids.popleft() for _ in range(count)]


def _deliver(units: list[Submitted], answers: Sequence[Answer]) -> None:
    start = 0
    for unit in units:
        own = list(answers[start : start + len(unit.requests)])
        start += len(own)
        for answer in own:
            if isinstance(answer, ExchangeError):
                REFUSED.labels(answer.code).inc()
        unit.answer(own)
