"""A reader whose fetching has ended says so, instead of finding nothing for ever."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

import pytest
from aiokafka.errors import KafkaError

from common.kafka import producer
from common.kafka_reader import Reader, reader
from common.topics import ensure_topics, topics
from daemons.local.servers import Servers
from tests.harness.servers import bare_settings

pytestmark = pytest.mark.anyio


PREFIXES = (f"reader{number}" for number in count())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def opened(servers: Servers) -> AsyncIterator[tuple[Callable[[bytes], Awaitable[int]], Reader]]:
    """A topic of its own: the way to send to it, and a reader at its beginning."""
    settings = bare_settings(
        kafka_bootstrap=servers.kafka_bootstrap, topic_prefix=next(PREFIXES), partitions=1
    )
    await ensure_topics(settings)
    topic = topics(settings).orders
    async with (
        producer(settings) as kafka,
        reader(settings, topic, 0, lambda earliest, _: earliest) as source,
    ):
        yield partial(kafka.send, topic, 0), source


async def test_a_reader_that_finds_nothing_where_something_lies_says_so(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.kafka_reader.QUIET_S", 0.1)
    async with opened(servers) as (send, source):
        for _ in range(5):  # Nothing is there, so nothing is wrong.
            assert await source.poll(0.2) == []
        source._inner.pause(source._at)  # It fetches no more, and does not know that it should.
        await send(b"one")
        with pytest.raises(KafkaError, match="stands at 0, the end is 1"):
            await find_nothing_for_ever(source)


async def find_nothing_for_ever(source: Reader) -> None:
    while True:
        assert await source.poll(0.2) == []


async def test_a_reader_whose_fetching_has_ended_says_so(servers: Servers) -> None:
    async with opened(servers) as (send, source):
        await send(b"one")
        while not (records := await source.poll()):
            pass
        assert [record.value for record in records] == [b"one"]
        fetching: asyncio.Task[None] = source._inner._fetcher._fetch_task
        fetching.cancel()
        await asyncio.wait([fetching])
        with pytest.raises(KafkaError, match="stopped to fetch"):
            await source.poll()
