"""One leadership of one partition: restore, consume, apply, publish (I4, I8).

Does not promise: that it is alone. Another leader may run beside it for a moment; the token in every
record decides whose work is settled, and the chain shows whether both saw the same commands.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio
import psycopg
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge, Histogram

from common import db
from common.config import Settings
from common.core.engine import Engine
from common.core.messages import Batch
from common.core.sequencing import Verdict, judge
from common.kafka import Message, Producer, Reader, Record, reader
from common.lease import Lease
from common.restore import Restored, read_watermark, restore
from common.telemetry import get_logger
from common.topics import topics
from common.wire import Undecodable, decode_batch
from daemons.matching.kept import Forked, Kept
from daemons.matching.outbound import book_messages, messages_for

RECORDS = 200
WATERMARK_EVERY_S = 0.5
BACKOFF_S = 0.2
LOST_AFTER = 10  # Looks at a watermark that stands.
REWIND_EVERY_S = 0.5
HINT_WAIT_S = 1.0
# Applying holds up the loop, and so the renewals of the lease: what a poll brings is published in slices.
SLICE_S = 0.1
# One command can touch every order that rests. With more of them than this, batches are applied in a
# thread: renewals go on while it computes. With fewer, the hop would cost more than the work.
APPLY_APART_FROM = 10_000
# Full books now and then, so that a new market-data starts without asking anyone; counted in
# sequences, not in seconds, so that a replay publishes them at the same places. Large books come less
# often: what they cost a command stays the same.
FULL_BOOKS_EVERY = 256

APPLIED = Counter("exchange_matching_commands_total", "Commands applied", ["partition"])
AGAIN = Counter("exchange_matching_republished_batches_total", "Batches published again", ["partition"])
TRADES = Counter("exchange_matching_trades_total", "Trades made", ["partition"])
GAPS = Counter("exchange_matching_gaps_total", "Gaps seen in exchange.orders", ["partition"])
APPLY = Histogram(
    "exchange_matching_round_seconds",
    "Decoding, applying and publishing what one poll brought",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1),
)
SEQUENCE = Gauge("exchange_matching_sequence", "Sequence of the engine", ["partition"])

log = get_logger(__name__)

AskRewind = Callable[[int, str], Awaitable[None]]
Report = Callable[[int, str], None]


@dataclass(slots=True)
class _Lead:
    """What belongs to one leadership and ends with it."""

    lease: Lease
    engine: Engine
    kept: Kept
    rewound_s: float = -REWIND_EVERY_S

    @property
    def partition(self) -> int:
        return self.lease.partition


class Replica:
    """Leads partitions; `lead` is what `share_partitions` runs for each lease."""

    def __init__(self, settings: Settings, producer: Producer, ask_rewind: AskRewind, report: Report) -> None:
        self._settings = settings
        self._topics = topics(settings)
        self._producer = producer
        self._ask_rewind = ask_rewind
        self._report = report

    async def lead(self, lease: Lease) -> None:
        """Lead until the lease ends; lost connections start over from a restore."""
        while True:
            try:
                await self._lead_once(lease)
            except* (psycopg.OperationalError, psycopg.InterfaceError, OSError, KafkaError) as group:
                log.warning("leader starts again", partition=lease.partition, error=repr(group.exceptions))
            except* Forked as group:
                log.error("fork: restoring", partition=lease.partition, error=repr(group.exceptions))
            await anyio.sleep(BACKOFF_S)

    async def _lead_once(self, lease: Lease) -> None:
        partition = lease.partition
        async with db.connect(self._settings.postgres_url, f"matching {partition}") as connection:
            restored = await restore(connection, partition)
            engine = Engine(partition)
            engine.restore(restored.snapshot)
            lead = _Lead(lease, engine, Kept(engine.sequence))
            log.info(
                "restored",
                partition=partition,
                token=lease.token,
                watermark=engine.sequence,
                live_orders=len(restored.snapshot.orders),
            )
            await self._publish_books(lead)
            async with (
                reader(self._settings, self._topics.orders, partition, restored.start) as source,
                anyio.create_task_group() as group,
            ):
                await _check_hint(source, restored)
                group.start_soon(_follow_watermark, connection, lead)
                await self._consume(lead, source)

    async def _consume(self, lead: _Lead, source: Reader) -> None:
        while True:
            if lead.kept.full:  # Settling is behind: its queue is ours.
                await self._wait_for_settling(lead)
                continue
            records = await source.poll(max_records=RECORDS)
            while records:
                with APPLY.time():
                    messages, records = await self._apply_some(lead, records)
                    await self._producer.send_many(messages)
                SEQUENCE.labels(lead.partition).set(lead.engine.sequence)

    async def _wait_for_settling(self, lead: _Lead) -> None:
        """Until the watermark moves. Where it does not, Kafka may have lost what we published: nothing is
        read meanwhile that would ask for it, so it is published again from here."""
        watermark = lead.kept.watermark
        for _ in range(LOST_AFTER):
            await anyio.sleep(WATERMARK_EVERY_S)
            if lead.kept.watermark != watermark:
                return
        AGAIN.labels(lead.partition).inc()
        await self._producer.send_many(lead.kept.oldest())

    async def _apply_some(self, lead: _Lead, records: list[Record]) -> tuple[list[Message], list[Record]]:
        """Apply a slice of time, one record at least; gives what to publish, and the records left."""
        messages: list[Message] = []
        begun_s = anyio.current_time()
        for index, record in enumerate(records):
            if index and anyio.current_time() - begun_s >= SLICE_S:
                return messages, records[index:]
            try:
                batch = decode_batch(record.value)
            except Undecodable as error:
                if messages:  # What came before it is told first.
                    return messages, records[index:]
                await self._stand_still(lead, record, str(error))
            verdict = judge(
                lead.engine.sequence,
                lead.engine.chain,
                batch.first_sequence,
                batch.last_sequence,
                batch.previous_chain,
                batch.chain,
            )
            if verdict is Verdict.NEXT:
                messages += await self._apply(lead, batch, record)
            elif verdict is Verdict.SEEN:
                again = lead.kept.again(batch.first_sequence)
                AGAIN.labels(lead.partition).inc(bool(again))
                messages += again
            elif verdict is Verdict.GAP:
                await self._rewind(lead, batch)
            else:
                raise Forked(f"the batch at {batch.first_sequence} does not continue this chain")
        return messages, []

    async def _apply(self, lead: _Lead, batch: Batch, record: Record) -> list[Message]:
        if lead.engine.resting_orders < APPLY_APART_FROM:
            kept, views = self._make(lead, batch, record)
        else:
            kept, views = await anyio.to_thread.run_sync(self._make, lead, batch, record)
        lead.kept.add(batch.first_sequence, batch.last_sequence, batch.chain, kept)
        APPLIED.labels(lead.partition).inc(len(batch.commands))
        return kept + views

    def _make(self, lead: _Lead, batch: Batch, record: Record) -> tuple[list[Message], list[Message]]:
        """Apply the batch: what it is told with, and full books when it is time for them. Only computes."""
        engine, partition, token = lead.engine, lead.partition, lead.lease.token
        applied = engine.apply(batch)
        messages = messages_for(applied, self._topics, token=token, orders_offset=record.offset)
        TRADES.labels(partition).inc(len(applied.settlement.trades))
        every = max(FULL_BOOKS_EVERY, engine.resting_orders)
        if batch.last_sequence // every == (batch.first_sequence - 1) // every:
            return messages, []
        return messages, book_messages(engine.books(), self._topics, partition, token)

    async def _rewind(self, lead: _Lead, batch: Batch) -> None:
        """Something is missing before this batch: have the relay publish from the watermark again."""
        GAPS.labels(lead.partition).inc()
        if anyio.current_time() - lead.rewound_s < REWIND_EVERY_S:
            return
        lead.rewound_s = anyio.current_time()
        log.warning(
            "gap", partition=lead.partition, sequence=lead.engine.sequence, found=batch.first_sequence
        )
        await self._ask_rewind(lead.partition, "matching_gap")

    async def _stand_still(self, lead: _Lead, record: Record, error: str) -> None:
        """A record that cannot be read stops its partition alone, loudly, and keeps the lease."""
        where = f"exchange.orders, partition {lead.partition}, offset {record.offset}"
        log.error("partition stopped", partition=lead.partition, offset=record.offset, error=error)
        self._report(lead.partition, f"{where}: {error}")
        await anyio.sleep_forever()

    async def _publish_books(self, lead: _Lead) -> None:
        books = lead.engine.books()
        await self._producer.send_many(book_messages(books, self._topics, lead.partition, lead.lease.token))


async def _check_hint(source: Reader, restored: Restored) -> None:
    """Stand after the batch at the watermark; when it is not where the hint says, at the earliest record."""
    if restored.has_hint:
        records = await source.poll(max_wait_s=HINT_WAIT_S, max_records=1)
        if not records or not _is_at(records[0], restored):
            await source.seek_earliest()


def _is_at(record: Record, restored: Restored) -> bool:
    try:
        batch = decode_batch(record.value)
    except Undecodable:
        return False
    return (batch.last_sequence, batch.chain) == (restored.snapshot.sequence, restored.snapshot.chain)


async def _follow_watermark(connection: db.Connection, lead: _Lead) -> None:
    while True:
        await anyio.sleep(WATERMARK_EVERY_S)
        lead.kept.settled(*await read_watermark(connection, lead.partition))
