"""One partition in this process: restore, follow, and publish while it leads (I4, I8).

Every replica applies every batch and keeps the events that nobody has settled, so that leading is a
matter of publishing: a new leader looks at the watermark, publishes what it kept above it, and goes on.

Does not promise: that it is alone. Another leader may run beside it for a moment; the token in every
record decides whose work is settled, and the chain shows whether both saw the same commands.
"""

from functools import partial

import anyio
import psycopg
from aiokafka.errors import KafkaError

from common import db
from common.core.engine import Engine
from common.core.messages import Batch
from common.core.sequencing import Verdict
from common.kafka import Message
from common.kafka_reader import Reader, Record, reader
from common.lease import Lease
from common.restore import Restored, restore_within
from common.stops import is_passed, read_skips
from common.supervise import collector_at_rest, leaves
from common.telemetry import get_logger
from common.topics import topics
from common.wire import Undecodable, decode_batch
from daemons.matching import metrics
from daemons.matching.beginning import at_end, check_hint
from daemons.matching.following import Following, Outdated
from daemons.matching.kept import Forked, KeptBatch
from daemons.matching.outbound import stamped
from daemons.matching.pauses import Pauses
from daemons.matching.settled import Settled, read_settled
from daemons.matching.surroundings import Behind, Failed, Stuck, Surroundings

RECORDS = 200
LOOK_EVERY_S, LOOK_S = 0.5, 3.0
BACKOFF_S = 0.2
LOST_AFTER = 10  # Looks at a watermark that stands.
REWIND_EVERY_S = 0.5
# Applying holds up the loop, and so the renewals of the lease: what a poll brings is published in slices.
SLICE_S = 0.1
SLICE_BYTES = 8 << 20
# One command can touch every order that rests. With more of them than this, batches are applied in a
# thread: renewals go on while it computes. With fewer, the hop would cost more than the work.
APART_FROM = 10_000

log = get_logger(__name__)


class Replica:
    """`run` follows the partition for ever; `lead` publishes while it runs."""

    def __init__(self, partition: int, around: Surroundings) -> None:
        self.partition = partition
        self._around = around
        self._topics = topics(around.settings)
        self._lease: Lease | None = None
        self._following: Following | None = None
        self._once = anyio.CancelScope()  # One restore and what follows from it.
        self._publishing = anyio.CancelScope()
        self._order = anyio.Lock()  # Applying and publishing: one batch after the other.
        self._rewound_s = -REWIND_EVERY_S
        self._last_act = 0
        self._stuck = False
        self._failed_at = 0  # The first sequence of the batch that could not be applied.
        self._forked = False  # The last engine; what it had read may mislead the next one as well.

    @property
    def ready(self) -> bool:
        """True when it could lead at once; also when it stands still, as every other would."""
        return self._stuck or (self._following is not None and self._following.caught_up)

    @property
    def following(self) -> Following | None:
        return self._following

    def start_again(self, why: object) -> None:
        """Throw the engine away and restore another."""
        self._forked |= isinstance(why, Forked)
        log.warning("replica starts again", partition=self.partition, why=str(why) or repr(why))
        self._following = None
        self._once.cancel()

    async def run(self) -> None:
        """Follow until cancelled; whatever fails starts over from a restore."""
        while True:
            stuck: Stuck | None = None
            self._once = anyio.CancelScope()
            try:
                with self._once:
                    await self._follow_once()
            except* (
                psycopg.Error,
                OSError,
                KafkaError,
                Behind,
                Failed,
            ) as group:  # 25P03 is an InternalError.
                self.start_again([repr(error) for error in leaves(group)])
            except* (Forked, Outdated) as group:
                for error in leaves(group):
                    self.start_again(error)
            except* Stuck as group:
                stuck = next(one for one in leaves(group) if isinstance(one, Stuck))
            finally:
                self._following = None
            if stuck is not None:
                await self._stand_still(stuck)
            await anyio.sleep(BACKOFF_S)

    async def lead(self, lease: Lease) -> None:
        """Publish under this lease until cancelled. What `share_partitions` runs."""
        try:
            async with self._order:
                self._lease = lease
                if self._following is not None:
                    try:
                        await self._take_over(self._following, lease)
                    except Exception as error:
                        self.start_again(error)  # Its restore takes over.
            await anyio.sleep_forever()
        finally:
            self._lease = None
            self._publishing.cancel()

    # ---- following ------------------------------------------------------------------------------

    async def _follow_once(self) -> None:
        restored, following = await self._restore()
        start = at_end if self._forked else restored.start
        async with reader(self._around.settings, self._topics.orders, self.partition, start) as source:
            if self._forked:
                # What lies in the topic may be of commits that PostgreSQL has lost: the outbox knows better.
                await self._around.ask_rewind(self.partition, "matching_fork")
                self._forked = False
            else:
                await check_hint(source, restored)
            async with self._order:
                self._following = following
                if self._lease is not None:
                    await self._take_over(following, self._lease)
            await self._consume(following, source)

    async def _restore(self) -> tuple[Restored, Following]:
        metrics.RESTORES.labels(self.partition).inc()
        async with self._around.pool.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            restored = await restore_within(connection, self.partition)
            last_act = (await read_settled(connection, [self.partition]))[self.partition].last_act
            skips = await read_skips(connection, self.partition)
        self._last_act = last_act
        engine = Engine(self.partition)
        try:
            if len(restored.snapshot.orders) < APART_FROM:
                engine.restore(restored.snapshot)
            else:
                with collector_at_rest():
                    await anyio.to_thread.run_sync(engine.restore, restored.snapshot, Pauses())
        except Exception as error:  # The tables contradict themselves; `exchange audit` says where.
            reason = f"the state at the watermark {restored.snapshot.sequence} cannot be restored: {error!r}"
            raise Stuck(reason) from error
        log.info(
            "restored",
            partition=self.partition,
            watermark=engine.sequence,
            live_orders=engine.resting_orders,
        )
        return restored, Following(engine, self._topics, skips, last_act)

    async def _consume(self, following: Following, source: Reader) -> None:
        while True:
            if following.kept.full:  # Settling is behind: its queue is ours.
                await self._wait_for_settling(following)
                continue
            records = await source.poll(max_records=RECORDS)
            following.caught_up |= not records or records[-1].offset + 1 >= (source.known_end() or 0)
            while records:
                async with self._order:
                    with metrics.ROUND.time():
                        messages, records, stuck = await self._apply_some(following, records)
                        await self._publish(messages)
                        if stuck is not None:  # What came before it is told first.
                            raise stuck
                self._measure(following)

    def _measure(self, following: Following) -> None:
        metrics.SEQUENCE.labels(self.partition).set(following.engine.sequence)
        metrics.RESTING.labels(self.partition).set(following.engine.resting_orders)
        metrics.KEPT.labels(self.partition).set(following.kept.size_bytes)

    async def _apply_some(
        self, following: Following, records: list[Record]
    ) -> tuple[list[Message], list[Record], Exception | None]:
        """Apply a slice of time, one record at least; gives what to publish, and the records left.

        Or what ended it: after that the engine is not to be touched any more.
        """
        messages: list[Message] = []
        begun_s = anyio.current_time()
        for index, record in enumerate(records):
            if index and anyio.current_time() - begun_s >= SLICE_S:
                return messages, records[index:], None
            try:
                messages += await self._take(following, record)
            except (Stuck, Failed) as error:
                return messages, [], error
        return messages, [], None

    async def _take(self, following: Following, record: Record) -> list[Message]:
        """One record: apply it, or say why not; gives what a leader publishes for it."""
        try:
            batch = decode_batch(record.value)
        except Undecodable as error:
            async with self._around.pool.connection() as connection:
                place = (self._topics.orders, self.partition, record.offset)
                if await is_passed(connection, *place, record.value):
                    return []
            raise Stuck(f"it cannot be read: {error}", self._topics.orders, record) from error
        verdict = following.judge(batch)
        if verdict is Verdict.NEXT:
            return await self._apply(following, batch, record)
        if verdict is Verdict.SEEN:
            return self._again(following, batch)
        if verdict is Verdict.FORK:
            raise Forked(f"the batch at {batch.first_sequence} does not continue this chain")
        await self._miss(following, batch)
        return []

    async def _apply(self, following: Following, batch: Batch, record: Record) -> list[Message]:
        compute = partial(following.compute, batch, record.offset, leading=self._lease is not None)
        try:
            if following.engine.resting_orders < APART_FROM:
                made = compute()
            else:
                made = await anyio.to_thread.run_sync(partial(compute, pause=Pauses()))
        except Exception as error:
            where = f"commands {batch.first_sequence} to {batch.last_sequence}"
            reason = f"{where} cannot be applied: {error!r}"
            if self._failed_at != batch.first_sequence:  # This engine, or this machine, may be to blame.
                self._failed_at = batch.first_sequence
                raise Failed(reason) from error
            raise Stuck(reason, self._topics.orders, record, batch.first_sequence) from error
        following.keep(made)
        return made.messages

    def _again(self, following: Following, batch: Batch) -> list[Message]:
        kept = following.kept.again(batch.first_sequence, batch.last_sequence, batch.chain)
        if kept is None or self._lease is None:
            return []
        metrics.AGAIN.labels(self.partition).inc()
        return kept.events(self._topics)

    async def _miss(self, following: Following, batch: Batch) -> None:
        """Something is missing before this batch: have the relay publish from the watermark again."""
        metrics.GAPS.labels(self.partition).inc()
        if anyio.current_time() - self._rewound_s < REWIND_EVERY_S:
            return
        self._rewound_s = anyio.current_time()
        at = following.engine.sequence
        log.warning("gap", partition=self.partition, sequence=at, found=batch.first_sequence)
        now = await self._look()
        if now.sequence > at:
            raise Behind(f"the watermark is {now.sequence}, this engine at {at}")
        if self._lease is not None:
            await self._around.ask_rewind(self.partition, "matching_gap")

    async def _look(self) -> Settled:
        with anyio.fail_after(LOOK_S):
            async with self._around.pool.connection() as connection:
                return (await read_settled(connection, [self.partition]))[self.partition]

    # ---- leading --------------------------------------------------------------------------------

    async def _take_over(self, following: Following, lease: Lease) -> None:
        """Publish what nobody has settled, then the books as they are now. The order is held."""
        begun_s = anyio.current_time()
        now = await self._look()
        if now.sequence < following.kept.watermark:
            raise Forked(f"the watermark went back to {now.sequence}: PostgreSQL has lost commits")
        if following.engine.sequence < now.sequence:
            raise Behind(f"the watermark is {now.sequence}, this engine at {following.engine.sequence}")
        following.settled(now)
        kept = following.kept.all()
        await self._publish_kept(kept)
        await self._publish(following.books())
        seconds = anyio.current_time() - begun_s
        metrics.TAKEOVER.observe(seconds)
        log.info(
            "took over",
            partition=self.partition,
            token=lease.token,
            watermark=following.kept.watermark,
            kept_batches=len(kept),
            seconds=round(seconds, 4),
        )

    async def _publish_kept(self, batches: list[KeptBatch]) -> None:
        """In pieces: encoding holds up the loop."""
        messages: list[Message] = []
        size_bytes = 0
        for batch in batches:
            if batch.rows < APART_FROM:
                messages += batch.events(self._topics)
            else:
                messages += await anyio.to_thread.run_sync(batch.events, self._topics)
            size_bytes += batch.size_bytes
            if size_bytes >= SLICE_BYTES:
                await self._publish(messages)
                messages, size_bytes = [], 0
        await self._publish(messages)

    async def _publish(self, messages: list[Message]) -> None:
        """Send as the leader that this process is now, if it is one; the end of the lease ends it."""
        if self._lease is None or not messages:
            return
        with anyio.CancelScope() as self._publishing:
            await self._around.producer.send_many(stamped(messages, self._lease.token))

    async def _wait_for_settling(self, following: Following) -> None:
        """Until the watermark moves. Where it does not, Kafka may have lost what was published: nothing is
        read meanwhile that would ask for it, so it is published again from here."""
        watermark = following.kept.watermark
        for _ in range(LOST_AFTER):
            await anyio.sleep(LOOK_EVERY_S)
            if following.kept.watermark != watermark:
                return
        async with self._order:
            if self._lease is not None:
                metrics.AGAIN.labels(self.partition).inc()
                await self._publish_kept(following.kept.oldest())

    # ---- standing still -------------------------------------------------------------------------

    async def _stand_still(self, stuck: Stuck) -> None:
        """Stop this partition alone, loudly, and keep the lease, until an operator has acted."""
        log.error(
            "partition stopped",
            topic=stuck.topic,
            partition=self.partition,
            offset=stuck.record.offset if stuck.record else None,
            reason=stuck.reason,
        )
        self._around.report(self.partition, stuck.where + stuck.reason)
        self._stuck = True
        try:
            await self._until_an_operator_acts(stuck)
        finally:
            self._stuck = False
            self._around.report(self.partition, "")

    async def _until_an_operator_acts(self, stuck: Stuck) -> None:
        told: Lease | None = None  # Each new leader tells it once.
        while True:
            try:
                if (await self._look()).last_act != self._last_act:
                    return
            except Exception as error:
                if not db.is_transient(error):
                    raise
                log.warning("still stopped", partition=self.partition, error=str(error))
            lease = self._lease
            if lease is not None and lease != told and await self._around.report_stop(lease, stuck):
                told = lease
            await anyio.sleep(LOOK_EVERY_S)
