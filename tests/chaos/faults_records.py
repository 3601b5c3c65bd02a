"""Faults of what Kafka holds: records that nobody can read, old ones that come again in any order."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from common import db
from common.kafka import Message, producer
from common.kafka_reader import Record, reader
from common.stops import Act, NotStopped, NotTheRecord, Stop, read_stops, skip_record
from common.topics import topics
from tests.chaos.faults import Fault, FaultKind
from tests.chaos.world import ChaosFailure, World

NEEDS = frozenset({"kafka"})
TOPICS = ("orders", "settlements", "trades", "orderbook", "order_updates")
STOPPING = ("orders", "settlements")  # Money hangs on these; the others go to the dead letters.
_STOPPED_WITHIN_S, _AGAIN_S, _SLICE = 15.0, 0.1, 50
_QUIET_S = 2.0  # Every instance that reads the record has been let past it.


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be decoded. What must stop stops, and an operator has the record skipped."""

    topic: str
    partition: int
    record: bytes

    async def inject(self, world: World) -> None:
        topic = getattr(topics(world.exchange.settings), self.topic)
        async with producer(world.exchange.settings) as kafka:
            offset = await kafka.send(topic, self.partition, self.record)
        if self.topic in STOPPING:
            await self._operate(world, topic, offset)

    async def _operate(self, world: World, topic: str, offset: int) -> None:
        async with db.connect(world.exchange.settings.postgres_url, "chaos operator") as connection:
            skipped = 0
            deadline_s = anyio.current_time() + _STOPPED_WITHIN_S
            while anyio.current_time() < deadline_s:
                stops = [stop for stop in await read_stops(connection) if self._is_mine(stop, topic, offset)]
                if stops:
                    act = Act(self.partition, "chaos", "a poisoned record of the test")
                    try:
                        await skip_record(connection, act, topic, offset)
                    except (NotTheRecord, NotStopped):
                        continue  # It has gone on meanwhile.
                    skipped += 1
                    deadline_s = anyio.current_time() + _QUIET_S
                await anyio.sleep(_AGAIN_S)
        if not skipped:
            raise ChaosFailure(f"nobody stopped at {topic}, partition {self.partition}, offset {offset}")
        world.note(f"skipped {topic}:{self.partition}:{offset}")

    def _is_mine(self, stop: Stop, topic: str, offset: int) -> bool:
        return (stop.partition, stop.topic, stop.offset) == (self.partition, topic, offset)


@dataclass(frozen=True, slots=True)
class Again:
    """Old records of all topics are delivered again, shuffled, with the headers that they had."""

    seed: int
    count: int

    async def inject(self, world: World) -> None:
        rng = random.Random(self.seed)
        found: list[Message] = []
        each = self.count // (len(TOPICS) * world.exchange.settings.partitions)
        for kind in TOPICS:
            topic = getattr(topics(world.exchange.settings), kind)
            for partition in range(world.exchange.settings.partitions):
                for record in await _last(world, topic, partition, 2 * each):
                    found.append(_again(topic, partition, record))
        rng.shuffle(found)
        # Few records there are come more often than once.
        chosen = [*found, *rng.choices(found, k=max(0, self.count - len(found)))][: self.count]
        async with producer(world.exchange.settings) as kafka:
            for start in range(0, len(chosen), _SLICE):
                await kafka.send_many(chosen[start : start + _SLICE])
        world.note(f"{len(chosen)} deliveries of {len(found)} old records")


async def _last(world: World, topic: str, partition: int, count: int) -> list[Record]:
    """The last so many records, or as many as there are."""
    ends: list[int] = []

    def start(earliest: int, end: int) -> int:
        ends.append(end)
        return max(earliest, end - count)

    found: list[Record] = []
    async with reader(world.exchange.settings, topic, partition, start) as source:
        with anyio.move_on_after(3.0):
            while ends[0] and (not found or found[-1].offset < ends[0] - 1):
                found += await source.poll()
    return found


def _again(topic: str, partition: int, record: Record) -> Message:
    token = record.token or None
    offset = None if record.source_offset < 0 else record.source_offset
    return Message(topic, partition, record.value, token, offset)


def _poison(topic: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Poison(topic, rng.randrange(2), b"\xff" + rng.randbytes(rng.randint(0, 60)))


def _shuffled(rng: random.Random) -> Fault:
    return Again(rng.randrange(1 << 30), 1_000)


KINDS = [
    *(
        FaultKind(f"a poisoned record in exchange.{topic}", _poison(topic), NEEDS, quick=topic != "trades")
        for topic in TOPICS
    ),
    FaultKind("1,000 duplicated and shuffled deliveries", _shuffled, NEEDS, quick=True),
]
