"""The tail of a partition on a Kafka in memory: a leader gets every record that it needs, in order."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from aiokafka.errors import KafkaError

from common.config import Settings
from common.kafka_reader import Record
from daemons.order_service import tail as module
from daemons.order_service.tail import BACK, Tail
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Topic:
    """One partition: `opened` says where readers began."""

    def __init__(self, records: int) -> None:
        self.records = [Record(offset, b"%d" % offset, 1, -1) for offset in range(records)]
        self.opened: list[int] = []
        self.broken = False

    def add(self, value: bytes) -> None:
        self.records.append(Record(len(self.records), value, 1, -1))

    @asynccontextmanager
    async def reader(
        self, _settings: Settings, _topic: str, _partition: int, start: Callable[[int, int], int]
    ) -> AsyncIterator["Source"]:
        await anyio.sleep(0.001)
        end = len(self.records)
        self.opened.append(max(0, min(start(0, end), end)))
        yield Source(self, self.opened[-1])


class Source:
    def __init__(self, topic: Topic, offset: int) -> None:
        self._topic = topic
        self._offset = offset

    async def poll(self, max_records: int) -> list[Record]:
        await anyio.sleep(0.001)
        if self._topic.broken:
            self._topic.broken = False
            raise KafkaError("away")
        if self._offset > len(self._topic.records):
            self._offset = 0  # As a reader whose offset is out of range.
            return []
        found = self._topic.records[self._offset :][:max_records]
        self._offset += len(found)
        return found


@asynccontextmanager
async def following(
    monkeypatch: pytest.MonkeyPatch, topic: Topic, settled_s: float = 0.02
) -> AsyncIterator[Tail]:
    monkeypatch.setattr(module, "reader", topic.reader)
    tail = Tail(Settings(), "settlements", 0)
    async with anyio.create_task_group() as group:
        group.start_soon(tail.run)
        with anyio.fail_after(5):
            while not topic.opened:
                await anyio.sleep(0.001)
            await anyio.sleep(settled_s)
            yield tail
        group.cancel_scope.cancel()


async def taken(tail: Tail, until: int) -> list[int]:
    """The offsets up to this one."""
    offsets: list[int] = []
    while not offsets or offsets[-1] < until:
        offsets += [record.offset for record in await tail.take(7)]
    return offsets


async def test_a_leader_begins_with_what_was_read_before_it_led(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(BACK + 100)
    async with following(monkeypatch, topic) as tail:
        tail.begin(BACK + 50)
        assert await taken(tail, BACK + 99) == list(range(BACK + 50, BACK + 100))
        topic.add(b"new")
        assert await taken(tail, BACK + 100) == [BACK + 100]
        assert topic.opened == [100]


OLD = 5_001  # An offset of the topic that Kafka had before it was wiped.


async def test_after_a_wipe_a_leader_gets_what_was_read_of_the_new_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic(20)
    async with following(monkeypatch, topic) as tail:
        tail.begin(OLD)
        assert await taken(tail, 19) == list(range(20))
        topic.add(b"new")
        assert await taken(tail, 20) == [20]


async def test_after_a_wipe_a_reader_that_is_opened_begins_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic(20)
    async with following(monkeypatch, topic, settled_s=0.0) as tail:
        tail._drop_all()  # Not open yet, when it is led.
        tail.begin(OLD)
        assert await taken(tail, 19) == list(range(20))


async def test_after_a_wipe_a_reader_that_failed_begins_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic = Topic(100)
    async with following(monkeypatch, topic) as tail:
        tail.begin(0)
        assert await taken(tail, 99) == list(range(100))
        topic.records, topic.broken = topic.records[:5], True
        assert await taken(tail, 4) == list(range(5))


async def test_what_is_not_there_any_more_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(BACK + 100)
    async with following(monkeypatch, topic) as tail:
        tail.begin(10)
        assert await taken(tail, BACK + 99) == list(range(10, BACK + 100))
        tail.end()
        tail.begin(BACK + 90)  # Taken before, and not settled.
        assert await taken(tail, BACK + 99) == list(range(BACK + 90, BACK + 100))
        assert topic.opened == [100, 10, BACK + 90]


async def test_a_leader_goes_on_where_kafka_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(20)
    async with following(monkeypatch, topic) as tail:
        tail.begin(0)
        assert await taken(tail, 19) == list(range(20))
        topic.broken = True
        topic.add(b"new")
        assert await taken(tail, 20) == [20]


async def test_a_topic_made_anew_is_read_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(50)
    async with following(monkeypatch, topic) as tail:
        topic.records = topic.records[:5]
        await anyio.sleep(0.02)
        topic.add(b"new")
        tail.begin(3)
        assert await taken(tail, 5) == [3, 4, 5]


async def test_a_standby_keeps_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEEP_BYTES", 100)
    topic = Topic(300)
    async with following(monkeypatch, topic) as tail:
        assert tail.size_bytes <= 100
        tail.begin(0)  # And a leader gets everything all the same.
        assert await taken(tail, 299) == list(range(300))
