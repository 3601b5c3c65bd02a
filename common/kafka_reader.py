"""One partition of a topic, read from an explicit position; there are no consumer groups.

Does not promise: that a record comes once. After a rewind it comes again, from further back; the sequence,
the chain and the token that records carry are what readers go by (I4, I6, I7).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from common.config import Settings
from common.kafka_calls import cancelled_by_us_alone
from common.topics import MAX_RECORD_BYTES, OVERHEAD_BYTES

_MAX_BYTES = MAX_RECORD_BYTES + OVERHEAD_BYTES
# A broker that is silent for so long is asked again on a new connection.
_TIMEOUT_MS = 3_000
# It needs the processors to come back.
_BACKOFF_MS = 250
# A partition that is quiet for so long is looked at in another way.
QUIET_S, _SURE_S = 5.0, 3.0
_DIGITS = 18


@dataclass(slots=True)
class Record:
    """A record read; `token` 0 and `source_offset` -1 when the sender gave none."""

    offset: int
    value: bytes
    token: int
    source_offset: int


class Reader:
    """One partition of one topic, read from where it is told to."""

    def __init__(self, inner: AIOKafkaConsumer, at: TopicPartition) -> None:
        self._inner = inner
        self._at = at
        self._heard_s = anyio.current_time()  # When records came, or it was made sure that there are none.
        self._suspect: int | None = None  # Where it stood when there were records that had not come.

    async def bounds(self) -> tuple[int, int]:
        """The offsets of the earliest record and of the one that will come next."""
        with cancelled_by_us_alone():
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
        """Wait for records, at most `max_wait_s`. Where the offset is gone, go on from the earliest.

        Raises KafkaError when aiokafka has stopped to fetch. It does not say so: an error that it does not
        know (uvloop has one for a connection that was reset a moment ago) ends its task for good.
        """
        if self._inner._fetcher.error_future.done():
            raise KafkaError("aiokafka has stopped to fetch")
        try:
            with cancelled_by_us_alone():
                found = await self._inner.getmany(
                    self._at, timeout_ms=int(max_wait_s * 1000), max_records=max_records
                )
        except OffsetOutOfRangeError:  # Retention, or a topic made anew.
            await self.seek_earliest()
            return []
        records = [_record(raw) for raw in found.get(self._at, [])]
        if records:
            self._heard_s, self._suspect = anyio.current_time(), None
        elif anyio.current_time() - self._heard_s > QUIET_S:
            await self._make_sure()
        return records

    async def _make_sure(self) -> None:
        """A second look where it is silent: should aiokafka have stopped to fetch without a word, records lie
        there that nothing brings. Raises KafkaError when that was so at the last look as well.
        """
        self._heard_s = anyio.current_time()
        with anyio.move_on_after(_SURE_S):  # Whether the broker is there is not the question here.
            with cancelled_by_us_alone():
                position: int = await self._inner.position(self._at)
            _, end = await self.bounds()
            if position == end:
                self._suspect = None
            elif position != self._suspect:
                self._suspect = position
            else:
                raise KafkaError(f"aiokafka does not fetch: it stands at {position}, the end is {end}")


def _record(raw: object) -> Record:
    token, source_offset = 0, -1
    for name, value in raw.headers:  # type: ignore[attr-defined]  # aiokafka has no types
        if name == "token":
            token = _number(value, token)
        elif name == "offset":
            source_offset = _number(value, source_offset)
    return Record(raw.offset, raw.value or b"", token, source_offset)  # type: ignore[attr-defined]


def _number(value: bytes | None, otherwise: int) -> int:
    """Anybody may have written it: what is no number of 64 bits must not end the reader."""
    return int(value) if value and len(value) <= _DIGITS and value.isdigit() else otherwise


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
        fetch_max_bytes=_MAX_BYTES,
        max_partition_fetch_bytes=_MAX_BYTES,
        request_timeout_ms=_TIMEOUT_MS,
        retry_backoff_ms=_BACKOFF_MS,
        metadata_max_age_ms=5_000,
    )
    try:
        with cancelled_by_us_alone():
            await inner.start()
        inner.assign([at])
        self = Reader(inner, at)
        earliest, end = await self.bounds()
        inner.seek(at, max(earliest, min(start(earliest, end), end)))
        yield self
    finally:
        with suppress(KafkaError), cancelled_by_us_alone():
            await inner.stop()
