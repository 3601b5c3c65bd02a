"""Records that market-data cannot use go to exchange.dead_letters, for people, and the views go on.

A letter's value is the record as it was; where it lay, and what was wrong with it, stand in its headers.
No money hangs on these views: what a lost record said comes back with the next full book, from PostgreSQL
(trades), or with the next look at one's orders.

Does not promise: that every letter arrives. Few wait here, and when Kafka takes none, or a flood comes,
the rest is counted and told in the log alone. A record that is read again may be sent again.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
from aiokafka.errors import KafkaError

from common.kafka import Message, Producer
from common.kafka_reader import Record
from common.telemetry import get_logger
from common.topics import Topics
from daemons.market_data import metrics

MOST_WAITING, MOST_WAITING_BYTES = 256, 32 << 20
MOST_REMEMBERED = 4_096
MOST_REASON = 500  # Characters of it in a header.
RETRY_S = 5.0
SEND_S = 10.0
LOG_EVERY_S = 1.0  # At most one line of the log in this time; the metrics count them all.

log = get_logger(__name__)

Connect = Callable[[], AbstractAsyncContextManager[Producer]]


class DeadLetters:
    """`put` never waits; `run` sends. The producer is made when there is something to send."""

    def __init__(self, topics: Topics, connect: Connect) -> None:
        self._topics = topics
        self._connect = connect
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._came = anyio.Event()
        self._seen: OrderedDict[tuple[str, int, int, int], None] = OrderedDict()
        self._logged_s = -LOG_EVERY_S

    def put(self, kind: str, partition: int, record: Record, reason: str) -> None:
        """`kind` is the topic's name without the prefix, as in `Topics` and in the metrics."""
        topic: str = getattr(self._topics, kind)
        place = topic, partition, record.offset, hash(record.value)
        if place in self._seen:
            return  # It was read again from further back.
        self._seen[place] = None
        if len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)
        metrics.undecodable.labels(kind).inc()
        self._log(topic, partition, record, reason)
        size_bytes = len(record.value)
        if len(self._waiting) >= MOST_WAITING or self._waiting_bytes + size_bytes > MOST_WAITING_BYTES:
            metrics.dead_letters.labels("dropped").inc()
            return
        headers = (
            ("topic", topic.encode()),
            ("partition", b"%d" % partition),
            ("offset", b"%d" % record.offset),
            ("reason", reason[:MOST_REASON].encode(errors="replace")),
        )
        self._waiting.append(Message(self._topics.dead_letters, partition, record.value, headers=headers))
        self._waiting_bytes += size_bytes
        self._came.set()

    async def run(self) -> None:
        """Send what comes, until cancelled; what Kafka does not take is lost here, and counted."""
        while True:
            await self._came.wait()
            try:
                async with self._connect() as producer:
                    while True:
                        await self._send_waiting(producer)
                        await self._came.wait()
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("dead letters not sent", error=repr(error), waiting=len(self._waiting))
                await anyio.sleep(RETRY_S)

    async def _send_waiting(self, producer: Producer) -> None:
        """One by one: a letter that cannot be sent takes no other with it."""
        self._came = anyio.Event()
        while self._waiting:
            letter = self._waiting.popleft()
            self._waiting_bytes -= len(letter.value)
            sent = False
            try:
                with anyio.fail_after(SEND_S):
                    await producer.send_many([letter])
                sent = True
            finally:
                metrics.dead_letters.labels("sent" if sent else "failed").inc()
                if not sent and self._waiting:
                    self._came.set()

    def _log(self, topic: str, partition: int, record: Record, reason: str) -> None:
        now_s = anyio.current_time()
        if now_s - self._logged_s >= LOG_EVERY_S:
            self._logged_s = now_s
            place = {"topic": topic, "partition": partition, "offset": record.offset}
            log.error("dead letter", **place, size_bytes=len(record.value), reason=reason)
