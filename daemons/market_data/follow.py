"""Reads Kafka: one reader for each topic and partition, each with a task of its own.

Does not promise: that a record comes once. The feed drops what it has seen.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from aiokafka.errors import KafkaError

from common.config import Settings
from common.health import Health
from common.kafka_reader import Reader, Record, reader
from common.telemetry import get_logger
from daemons.market_data import metrics

POLL_S = 0.5
RECORDS = 500
# What comes within this time of the last records is read together: a read costs more than what it brings.
# Private updates do not wait for it, the settler tells them directly.
TOGETHER_S = 0.02
RETRY_S = (0.2, 5.0)

log = get_logger(__name__)

Take = Callable[[int, Sequence[Record]], Awaitable[None]]
# Asked when a partition is read up to where it ended: how far to go back, in records, or None to go on.
GoBack = Callable[[int], int | None]

EVERYTHING = 1 << 62


class Progress:
    """Which partitions of a topic have been read up to where they ended at the start; told to Health.

    `on_all` is called once, when all have.
    """

    def __init__(
        self, health: Health, topic: str, partitions: int, on_all: Callable[[], None] = lambda: None
    ) -> None:
        self._health = health
        self._topic = topic
        self._on_all = on_all
        self._missing = set(range(partitions))
        self._count = partitions
        self._report()

    def caught_up(self, partition: int) -> None:
        if partition in self._missing:
            self._missing.discard(partition)
            self._report()
            if not self._missing:
                self._on_all()

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
    on_new_topic: Callable[[], None] = lambda: None  # Kafka was wiped: nobody can read what was unread.

    async def run(self) -> None:
        """Read until cancelled; when Kafka cannot be reached, try again from the same place."""
        reading = _Reading(self)
        pause_s = RETRY_S[0]
        while True:
            try:
                async with reader(self.settings, self.topic, self.partition, reading.start) as source:
                    pause_s = RETRY_S[0]
                    await reading.run(source)
            except (KafkaError, OSError) as error:
                log.warning("kafka", topic=self.topic, partition=self.partition, error=repr(error))
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, RETRY_S[1])


class _Reading:
    """How far one partition has been read; it outlives the connections."""

    def __init__(self, follow: Follow) -> None:
        self._follow = follow
        self._lag = metrics.lag.labels(follow.kind, str(follow.partition))
        self._records = metrics.records.labels(follow.kind)
        self._position: int | None = None  # Of the next record.
        self._first_end: int | None = None  # Where the partition ended at the start.

    def start(self, earliest: int, end: int) -> int:
        """Where to read first: some way back from the end, and after a broken connection where it broke."""
        if self._first_end is None:
            self._first_end = end
        if self._position is None:
            self._position = end - self._follow.back
        elif self._position > end:
            self._position = earliest
            self._follow.on_new_topic()
        self._position = max(earliest, self._position)
        return self._position

    async def run(self, source: Reader) -> None:
        assert self._position is not None
        assert self._first_end is not None
        follow = self._follow
        while True:
            if self._position >= self._first_end:
                follow.progress.caught_up(follow.partition)
                await self._maybe_go_back(source)
            records = await source.poll(max_wait_s=POLL_S, max_records=RECORDS)
            if records:
                if records[0].offset != self._position:
                    log.warning("read from another place", topic=follow.topic, partition=follow.partition)
                    follow.on_new_topic()
                self._records.inc(len(records))
                await follow.take(follow.partition, records)
                self._position = records[-1].offset + 1
            self._lag.set(max(0, (source.known_end() or 0) - self._position))
            if 0 < len(records) < RECORDS:
                await anyio.sleep(TOGETHER_S)

    async def _maybe_go_back(self, source: Reader) -> None:
        end = source.known_end()
        if not end:
            return  # Nothing to go back to.
        back = self._follow.go_back(self._follow.partition)
        if back is not None:
            metrics.reseeks.inc()
            await source.seek(max(0, end - back))
