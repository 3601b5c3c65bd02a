"""Kafka as the exchange uses it, with explicit partitions: what is sent; `kafka_reader`: what is read.

Does not promise: exactly once. What was sent and not acknowledged is sent again.
"""

import asyncio  # aiokafka knows no other loop; its futures are this one's.
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    ProducerClosed,
    ProducerFenced,
    UnknownProducerId,
)
from prometheus_client import Counter

from common.config import Settings
from common.kafka_calls import cancelled_by_us_alone
from common.telemetry import get_logger
from common.topics import MAX_RECORD_BYTES, OVERHEAD_BYTES

# aiokafka has one request under way to a broker, with one batch for each partition of a topic: what waits
# should go with it. Its own 16 KiB are two settlements of 100 orders; nothing is allocated before it is used.
_BATCH_BYTES = 1 << 20

# A broker that is silent for so long is asked again on a new connection.
_PRODUCE_TIMEOUT_MS = 5_000
_HUNG_S = 4 * _PRODUCE_TIMEOUT_MS / 1000
_RETRY_S = 0.2
# A wiped Kafka gives out ids that others may still use: each new producer may meet one of them.
_REPLACEMENTS = 20
_ABANDON_S, _STOP_S = 1.0, 3.0

# A daemon has dozens of clients; each tries again and again while the broker is away, and the broker needs
# the processors to come back.
_PRODUCE_BACKOFF_MS = 100

REPLACED = Counter("exchange_kafka_producers_replaced_total", "Producers whose id Kafka no longer took")

log = get_logger(__name__)


@dataclass(slots=True)
class Message:
    """A record to send; `token` and `source_offset` travel as headers, outside the bytes of a replay."""

    topic: str
    partition: int
    value: bytes
    token: int | None = None
    source_offset: int | None = None
    headers: tuple[tuple[str, bytes], ...] = ()  # Whatever else is to stand there.


class _TopicIsNew(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """An acknowledged offset is not above one acknowledged before: Kafka has lost the topic."""


class Producer:
    """An idempotent producer with acks=all: what it acknowledged is in order and on every replica.

    Kafka may be wiped under it. Its producer id, given out by the Kafka that is gone, may then be somebody
    else's too, and what the broker takes for repeated or out of order it does not write: so a producer that
    sees a sign of that is replaced by one with a new id, and the records at hand are sent again.
    """

    def __init__(self, make: Callable[[], AIOKafkaProducer]) -> None:
        self._make = make
        self._inner: AIOKafkaProducer | None = None
        self._replacing = anyio.Lock()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._sending: set[anyio.CancelScope] = set()
        self._last: dict[tuple[str, int], int] = {}  # The highest offset acknowledged.

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
        """Send all, then wait for all; gives their offsets. Order within a partition is kept.

        While the broker is away it waits; raises KafkaError for what waiting does not mend.
        """
        for _ in range(_REPLACEMENTS):
            inner = self._inner or await self._replaced()
            try:
                return await self._send_once(inner, messages)
            except KafkaError as error:
                if not _is_spoiling(error):
                    raise
                if inner is self._inner:
                    await self._give_up(inner, error)
        raise KafkaError("Kafka refuses one new producer after another")

    async def _send_once(self, inner: AIOKafkaProducer, messages: Sequence[Message]) -> list[int]:
        places = [(message.topic, message.partition) for message in messages]
        before = {place: self._last.get(place, -1) for place in places}
        futures: list[asyncio.Future[Any]] = []
        try:
            for message in messages:
                future = await self._hand_over(inner, message)
                futures.append(future)
                self._waiting.add(future)
                if inner is not self._inner:  # Given up meanwhile: nobody would ever hear of this one.
                    raise _Replaced
            with anyio.fail_after(_HUNG_S), cancelled_by_us_alone():
                offsets = [(await future).offset for future in futures]
        except TimeoutError:
            raise _Hung from None
        finally:
            self._waiting.difference_update(futures)
            for future in futures:  # One failure is told; the others are the same.
                if future.done() and not future.cancelled():
                    future.exception()
        for place, offset in zip(places, offsets, strict=True):
            if offset <= before[place]:
                self._last.clear()
                raise _TopicIsNew(f"{place[0]}, partition {place[1]}: {offset} after {before[place]}")
            self._last[place] = max(offset, self._last.get(place, -1))
        return offsets

    async def _hand_over(self, inner: AIOKafkaProducer, message: Message) -> asyncio.Future[Any]:
        """Wait for the metadata and for room; raises _Replaced when the producer is given up meanwhile.

        Its client is closed then, and who waits for metadata of that would wait for ever.
        """
        with anyio.CancelScope() as scope:
            self._sending.add(scope)
            try:
                with cancelled_by_us_alone():
                    future: asyncio.Future[Any] = await inner.send(
                        message.topic, message.value, partition=message.partition, headers=_headers(message)
                    )
                return future
            finally:
                self._sending.discard(scope)
        raise _Replaced

    async def _give_up(self, inner: AIOKafkaProducer, error: KafkaError) -> None:
        """Use it no more: who waits for it hears so now, and sends again with the next one."""
        log.warning("Kafka producer is replaced", error=repr(error))
        REPLACED.inc()
        self._inner = None
        for scope in self._sending:
            scope.cancel()
        for future in self._waiting:
            if not future.done():
                future.set_exception(_Replaced())
        await _abandon(inner)

    async def _replaced(self) -> AIOKafkaProducer:
        """The next one, when Kafka has given it an id."""
        async with self._replacing:
            while self._inner is None:
                try:
                    await self.try_start()
                except KafkaError as error:
                    log.warning("no producer yet", error=repr(error))
                    await anyio.sleep(_RETRY_S)
            return self._inner

    async def try_start(self) -> None:
        """Raises KafkaError when Kafka is not there."""
        made = self._make()
        try:
            with cancelled_by_us_alone():
                await made.start()
        except BaseException:
            await _abandon(made)
            raise
        self._inner = made

    async def stop(self) -> None:
        """Send what waits, if Kafka takes it in time; nothing can be sent afterwards."""
        if self._inner is not None:
            with anyio.move_on_after(_STOP_S), suppress(KafkaError), cancelled_by_us_alone():
                await self._inner.stop()
            await _abandon(self._inner)


class _Replaced(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The producer that had the record was given up."""


class _Hung(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """No answer, though aiokafka's own time-outs are over: it has lost the record."""


# What an idempotent producer does not survive; or may not: after a time-out nobody knows whether Kafka was
# away or the producer's own parts have stopped. The next producer waits until Kafka answers.
_SPOILING = (
    KafkaTimeoutError,
    _Replaced,
    _Hung,
    _TopicIsNew,
    OutOfOrderSequenceNumber,
    UnknownProducerId,
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    ProducerFenced,
    ProducerClosed,
)


def _is_spoiling(error: KafkaError) -> bool:
    return isinstance(error, _SPOILING) or type(error) is KafkaError  # The latter: aiokafka's sender ended.


async def _abandon(inner: AIOKafkaProducer) -> None:
    """Close it without sending what it still has: nobody waits for that any more."""
    with anyio.move_on_after(_ABANDON_S, shield=True), suppress(KafkaError), cancelled_by_us_alone():
        await inner.client.close()  # Ends the requests under way.
        await inner._sender.close()
    with anyio.move_on_after(_ABANDON_S, shield=True), suppress(KafkaError), cancelled_by_us_alone():
        inner._message_accumulator.fail_all(_Replaced())
        await inner.stop()


def _headers(message: Message) -> list[tuple[str, bytes]]:
    headers = [*message.headers]
    if message.token is not None:
        headers.append(("token", b"%d" % message.token))
    if message.source_offset is not None:
        headers.append(("offset", b"%d" % message.source_offset))
    return headers


@asynccontextmanager
async def producer(settings: Settings) -> AsyncIterator[Producer]:
    make = partial(
        AIOKafkaProducer,
        bootstrap_servers=settings.kafka_bootstrap,
        acks="all",
        enable_idempotence=True,
        # Refused here rather than by the broker: an idempotent producer does not survive the latter.
        max_request_size=MAX_RECORD_BYTES - OVERHEAD_BYTES,
        request_timeout_ms=_PRODUCE_TIMEOUT_MS,
        retry_backoff_ms=_PRODUCE_BACKOFF_MS,
        linger_ms=0,
        max_batch_size=_BATCH_BYTES,
    )
    made = Producer(make)
    with suppress(KafkaError):  # Not there yet: whoever sends waits for it.
        await made.try_start()
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):  # It takes seconds at most, and leaves no socket behind.
            await made.stop()
