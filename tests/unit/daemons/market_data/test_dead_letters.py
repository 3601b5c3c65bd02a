"""Letters: each once, few at a time, with the place they came from; and none can stop the views."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest
from aiokafka.errors import KafkaConnectionError

from common.kafka import Message, Producer
from common.kafka_reader import Record
from common.topics import topics
from daemons.market_data import dead_letters
from daemons.market_data.dead_letters import DeadLetters
from tests.harness.servers import bare_settings
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

TOPICS = topics(bare_settings(topic_prefix="x"))


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("asyncio")


class Post:
    """A producer that takes letters, unless it is told to fail."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.refuse = 0
        self.connects = 0

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Producer]:
        self.connects += 1
        yield cast(Producer, self)

    async def send_many(self, messages: Sequence[Message]) -> list[int]:
        if self.refuse:
            self.refuse -= 1
            raise KafkaConnectionError("no broker")
        self.sent += messages
        return [1] * len(messages)


def record(offset: int, value: bytes = b"\xff") -> Record:
    return Record(offset, value, 0, -1)


async def _delivered(letters: DeadLetters, for_s: float = 20.0) -> None:
    with anyio.move_on_after(for_s):
        await letters.run()


async def test_a_letter_says_where_it_lay_and_is_sent_once() -> None:
    post = Post()
    letters = DeadLetters(TOPICS, post.connect)
    for value in (b"half", b"half", b"another at that place"):
        letters.put("trades", 3, record(7, value), "it is cut")
    await _delivered(letters)
    assert [letter.value for letter in post.sent] == [b"half", b"another at that place"]
    assert (post.sent[0].topic, post.sent[0].partition) == ("x.dead_letters", 3)
    assert dict(post.sent[0].headers) == {
        "topic": b"x.trades",
        "partition": b"3",
        "offset": b"7",
        "reason": b"it is cut",
    }


async def test_without_letters_there_is_no_producer() -> None:
    post = Post()
    await _delivered(DeadLetters(TOPICS, post.connect))
    assert post.connects == 0


async def test_a_flood_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MOST_REMEMBERED", 100)
    post = Post()
    letters = DeadLetters(TOPICS, post.connect)
    for offset in range(5_000):
        letters.put("orderbook", 0, record(offset), "x" * 10_000)
    assert len(letters._seen) == 100
    letters.put("orderbook", 0, record(6_000, bytes(dead_letters.MOST_WAITING_BYTES)), "large")
    await _delivered(letters)
    assert len(post.sent) == dead_letters.MOST_WAITING
    assert len(dict(post.sent[0].headers)["reason"]) == dead_letters.MOST_REASON


async def test_what_kafka_does_not_take_is_lost_and_the_next_ones_are_not() -> None:
    post = Post()
    post.refuse = 2
    letters = DeadLetters(TOPICS, post.connect)
    for offset in range(4):
        letters.put("order_updates", 0, record(offset), "bad")
    await _delivered(letters)
    assert [dict(letter.headers)["offset"] for letter in post.sent] == [b"2", b"3"]
    assert post.connects == 3
