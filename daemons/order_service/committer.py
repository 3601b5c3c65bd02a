"""Natural batching of TX1: what arrives while a transaction runs forms the next one. No timers.

An idle exchange gives a batch of one at once; a busy one shares a commit among hundreds. The queue is
bounded: a full one answers Busy instead of growing.

Does not promise: an answer. When PostgreSQL stays away, the caller hears Unavailable, and what became
of its order is found by sending the same client_order_id again.
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
from daemons.order_service.markets import Markets
from daemons.order_service.placement import Doubt, Placement
from daemons.order_service.relay import Relays
from daemons.order_service.requests import Answer, Request

BLOCK = 1_000  # Order ids taken from the sequence at once; its INCREMENT.
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
class _Unit:
    """Requests that came together, and go into one transaction together."""

    requests: Sequence[Request]
    done: anyio.Event = field(default_factory=anyio.Event)
    answers: list[Answer] = field(default_factory=list)


class Committer:
    """Owns the session of TX1. `run` works until `finish` was called and everything is answered."""

    def __init__(
        self, postgres_url: str, markets: Markets, relays: Relays, *, batch_requests: int, queue_requests: int
    ) -> None:
        self._postgres_url = postgres_url
        self._markets = markets
        self._relays = relays
        self._batch_requests = batch_requests
        self._queue_requests = queue_requests
        self._units: deque[_Unit] = deque()
        self._queued = 0
        self._arrived = anyio.Event()
        self._finishing = False

    async def submit(self, requests: Sequence[Request]) -> list[Answer]:
        """Give the requests to the next transaction and wait for their answers, one for each."""
        if self._finishing:
            raise Unavailable("This order-service is stopping; send the request again")
        if self._queued + len(requests) > self._queue_requests:
            raise Busy(f"{self._queued} requests wait already")
        unit = _Unit(requests)
        self._units.append(unit)
        self._count(len(requests))
        self._arrived.set()
        await unit.done.wait()
        return unit.answers

    def finish(self) -> None:
        """Take nothing new; `run` ends when what was accepted is answered."""
        self._finishing = True
        self._arrived.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """One transaction after the other, until `finish` was called and everything is answered."""
        task_status.started()
        async with _Session(self._postgres_url, self._markets) as session:
            while units := await self._next_batch():
                await self._answer(session, units)

    async def _next_batch(self) -> list[_Unit]:
        """Wait for requests: whole units, at least one, up to the size of a batch. Empty: finished."""
        while not self._units:
            if self._finishing:
                return []
            self._arrived = anyio.Event()
            await self._arrived.wait()
        units = [self._units.popleft()]
        size = len(units[0].requests)
        while self._units and size + len(self._units[0].requests) <= self._batch_requests:
            units.append(self._units.popleft())
            size += len(units[-1].requests)
        self._count(-size)
        return units

    async def _answer(self, session: "_Session", units: list[_Unit]) -> None:
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

    async def _answer_apart(self, session: "_Session", units: list[_Unit], error: psycopg.Error) -> None:
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
        halves = _Unit(unit.requests[:middle]), _Unit(unit.requests[middle:])
        for half in halves:
            await self._answer(session, [half])
        unit.answers = [answer for half in halves for answer in half.answers]
        unit.done.set()

    def _count(self, more: int) -> None:
        self._queued += more
        QUEUED.set(self._queued)


class _Session:
    """The session that TX1 runs on, opened when it is needed, and the order ids taken from it."""

    def __init__(self, postgres_url: str, markets: Markets) -> None:
        self._postgres_url = postgres_url
        self._markets = markets
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
                db.connect(self._postgres_url, "order-service tx1")
            )
            self._placement = Placement(connection, self._markets)
        return self._placement

    async def drop(self) -> None:
        self._placement = None
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def take_ids(self, count: int) -> list[int]:
        """Ids from blocks of the sequence; those of a block that is lost are never used, which is fine."""
        placement = await self.placement()
        while len(self._order_ids) < count:
            first = await placement.next_block()
            self._order_ids.extend(range(first, first + BLOCK))
        return [self._order_ids.popleft() for _ in range(count)]


def _deliver(units: list[_Unit], answers: Sequence[Answer]) -> None:
    start = 0
    for unit in units:
        unit.answers = list(answers[start : start + len(unit.requests)])
        start += len(unit.requests)
        for answer in unit.answers:
            if isinstance(answer, Exception):
                REFUSED.labels(answer.code).inc()
        unit.done.set()
