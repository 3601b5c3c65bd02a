"""Kafka as the exchange uses it: explicit partitions, explicit positions, no consumer groups.

Does not promise: exactly once. Records may come twice and, after a rewind, from further back; the
sequence, the chain and the token that they carry are what readers go by (I4, I6, I7).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from common.config import Settings
from common.topics import MAX_RECORD_BYTES

_OVERHEAD_BYTES = 1 << 16  # Headers, and the framing of a batch of one record.
_MAX_IN_RECORD_BYTES = MAX_RECORD_BYTES + _OVERHEAD_BYTES


@dataclass(slots=True)
class Message:
    """A record to send; `token` and `source_offset` travel as headers, outside the bytes of a replay."""

    topic: str
    partition: int
    value: bytes
    token: int | None = None
    source_offset: int | None = None


@dataclass(slots=True)
class Record:
    """A record read; `token` 0 and `source_offset` -1 when the sender gave none."""

    offset: int
    value: bytes
    token: int
    source_offset: int


class Producer:
    """An idempotent producer with acks=all: what it acknowledged is in order and on every replica."""

    def __init__(self, inner: AIOKafkaProducer) -> None:
        self._inner = inner

    async def send(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        token: int | None = None,
        source_offset: int | None = None,
    ) -> int:
        """Send one record and wait for its acknowledgement; gives its offset."""
        return (await self.send_many([Message(topic, partition, value, token, source_offset)]))[0]

    async def send_many(self, messages: Sequence[Message]) -> list[int]:
        """Send all, then wait for all; gives their offsets. Order within a partition is kept."""
        futures = [
            await self._inner.send(
                message.topic, message.value, partition=message.partition, headers=_headers(message)
            )
            for message in messages
        ]
        return [(await future).offset for future in futures]


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = []
    if message.token is not None:
        headers.append(("token", b"%d" % message.token))
    if message.source_offset is not None:
        headers.append(("offset", b"%d" % message.source_offset))
    return headers


@asynccontextmanager
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    inner = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        acks="all",
        enable_idempotence=True,
        # Refused here rather than by the broker: an idempotent producer does not survive the latter.
        max_request_size=MAX_RECORD_BYTES - _OVERHEAD_BYTES,
        request_timeout_ms=10_000,
        retry_backoff_ms=50,
        linger_ms=0,
    )
    await inner.start()
    try:
        yield Producer(inner)
    finally:
        await inner.stop()


class Reader:
    """One partition of one topic, read from where it is told to."""

    def __init__(self, inner: AIOKafkaConsumer, at: TopicPartition) -> None:
        self._inner = inner
        self._at = at

    async def bounds(self) -> tuple[int, int]:
        """The offsets of the earliest record and of the one that will come next."""
        earliest = await self._inner.beginning_offsets([self._at])
        end = await self._inner.end_offsets([self._at])
        return earliest[self._at], end[self._at]

    def known_end(self) -> int | None:
        """The offset of the record that will come next, as the last fetch told; None before the first.

        Costs nothing. `bounds`, `seek` and `seek_earliest` ask the broker, on the connection on which a
        fetch may be waiting for records: each can take as long as that fetch, twice half a second.
        """
        end: int | None = self._inner.highwater(self._at)
        return end

    async def seek(self, offset: int) -> None:
        """Read from `offset` on, or from the nearest record that is there."""
        earliest, end = await self.bounds()
        self._inner.seek(self._at, max(earliest, min(offset, end)))

    async def seek_earliest(self) -> None:
        earliest, _ = await self.bounds()
        self._inner.seek(self._at, earliest)

    async def poll(self, max_wait_s: float = 0.5, max_records: int = 500) -> list[Record]:
        """Wait for records, at most `max_wait_s`. Where the offset is gone, go on from the earliest."""
        try:
            found = await self._inner.getmany(
                self._at, timeout_ms=int(max_wait_s * 1000), max_records=max_records
            )
        except OffsetOutOfRangeError:  # Retention, or a topic made anew.
            await self.seek_earliest()
            return []
        return [_record(raw) for raw in found.get(self._at, [])]


def _record(raw: object) -> Record:
    token, source_offset = 0, -1
    for name, value in raw.headers:  # type: ignore[attr-defined]  # aiokafka has no types
        if name == "token":
            token = int(value)
        elif name == "offset":
            source_offset = int(value)
    return Record(raw.offset, raw.value or b"", token, source_offset)  # type: ignore[attr-defined]


@asynccontextmanager
async def reader(
    settings: Settings,
    topic: str,
    partition: int,
    start: Callable[[int, int], int] = lambda _earliest, end: end,
) -> AsyncIterator[Reader]:
    """A reader without a consumer group, at the end of the partition until it is sought elsewhere.

    `start(earliest, end)` chooses another first offset, which costs nothing here and a second later on.
    """
    at = TopicPartition(topic, partition)
    inner = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_wait_ms=500,
        fetch_max_bytes=_MAX_IN_RECORD_BYTES,
        max_partition_fetch_bytes=_MAX_IN_RECORD_BYTES,
        request_timeout_ms=10_000,
        retry_backoff_ms=50,
        metadata_max_age_ms=5_000,
    )
    await inner.start()
    try:
        inner.assign([at])
        self = Reader(inner, at)
        earliest, end = await self.bounds()
        inner.seek(at, max(earliest, min(start(earliest, end), end)))
        yield self
    finally:
        await inner.stop()
