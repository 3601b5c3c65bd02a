"""Reads Kafka: one reader for each topic and partition, each with a task of its own.

Does not promise: that a record comes once. The feed drops what it has seen.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from aiokafka.errors import KafkaError

from common.config import Settings
from common.health import Health
from common.kafka import Reader, Record, reader
from common.telemetry import get_logger
from daemons.market_data import metrics

LAG_S = 1.0
POLL_S = 0.5
RETRY_S = (0.2, 5.0)

log = get_logger(__name__)

Take = Callable[[int, Sequence[Record]], Awaitable[None]]
# Asked when a partition is read up to its end: how far to go back, in records, or None to go on.
GoBack = Callable[[int], int | None]

EVERYTHING = 1 << 62


class Progress:
    """Which partitions of a topic have been read up to where they ended at the start; told to Health."""

    def __init__(self, health: Health, topic: str, partitions: int) -> None:
        self._health = health
        self._topic = topic
        self._missing = set(range(partitions))
        self._count = partitions
        self._report()

    def caught_up(self, partition: int) -> None:
        if partition in self._missing:
            self._missing.discard(partition)
            self._report()

    def _report(self) -> None:
        done = self._count - len(self._missing)
        self._health.set(self._topic, not self._missing, f"{done} of {self._count} partitions caught up")


@dataclass(slots=True)
class Follow:
    """One topic and partition. `kind` names the topic in metrics; `back` is where to start, in records
    before the end."""

    settings: Settings
    kind: str
    topic: str
    partition: int
    back: int
    take: Take
    progress: Progress
    go_back: GoBack = lambda _partition: None

    async def run(self) -> None:
        """Read until cancelled; when Kafka cannot be reached, try again from the same place."""
        position: int | None = None
        pause_s = RETRY_S[0]
        while True:
            try:
                async with reader(self.settings, self.topic, self.partition) as source:
                    _, end = await source.bounds()
                    position = max(0, end - self.back) if position is None else position
                    reading = _Reading(self, source, position, end)
                    try:
                        pause_s = RETRY_S[0]
                        await reading.run()
                    finally:
                        position = reading.position
            except (KafkaError, OSError) as error:
                log.warning("kafka", topic=self.topic, partition=self.partition, error=repr(error))
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S[1])


class _Reading:
    """One reader's life."""

    def __init__(self, follow: Follow, source: Reader, position: int, end: int) -> None:
        self._follow = follow
        self._source = source
        self._first_end = end
        self._lag = metrics.lag.labels(follow.kind, str(follow.partition))
        self._records = metrics.records.labels(follow.kind)
        self._looked_s = 0.0
        self.position = position

    async def run(self) -> None:
        follow = self._follow
        await self._seek(self.position)
        while True:
            records = await self._source.poll(max_wait_s=POLL_S)
            if records:
                self._records.inc(len(records))
                await follow.take(follow.partition, records)
                self.position = records[-1].offset + 1
            if self.position >= self._first_end:
                follow.progress.caught_up(follow.partition)
            if anyio.current_time() - self._looked_s >= LAG_S:
                await self._look_around()

    async def _look_around(self) -> None:
        """Once a second: how far behind, whether the topic was made anew, whether to go back."""
        self._looked_s = anyio.current_time()
        earliest, end = await self._source.bounds()
        self._lag.set(end - self.position)
        if end < self.position:
            log.warning("the topic was made anew", topic=self._follow.topic, partition=self._follow.partition)
            self._first_end = 0
            await self._seek(earliest)
            return
        if self.position < self._first_end:
            return
        back = self._follow.go_back(self._follow.partition)
        if back is not None and end > earliest:
            metrics.reseeks.inc()
            await self._seek(max(earliest, end - back))

    async def _seek(self, offset: int) -> None:
        await self._source.seek(offset)
        earliest, end = await self._source.bounds()
        self.position = max(earliest, min(offset, end))
