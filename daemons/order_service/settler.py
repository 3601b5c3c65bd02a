"""The settler: exchange.settlements -> TX2 -> exchange.order_updates, one leader for each partition.

Its position moves after the updates of a batch are published (I11): what a crash left unsaid is read
again, found settled, and said again.

Does not promise: that a partition never stops. A record that cannot be read, and one that contradicts
what TX1 wrote, stop it: in the metrics, in the readiness, in the log and in `partition_stops`, until a
person has looked (`exchange partition`). What came before it is settled.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import sha256

import anyio
import psycopg
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from common import db, stops
from common.admin import list_markets
from common.config import Settings
from common.core.messages import Settlement
from common.kafka import Message, Producer
from common.kafka_reader import Record
from common.lease import Lease
from common.spares import Session, Spares
from common.stops import SETTLEMENT, STOPPED
from common.telemetry import get_logger
from common.topics import topics
from common.trip import Trips
from common.wire import PART_BYTES, SettlementJoiner, Undecodable, encode_order_updates
from daemons.order_service.markets import Markets
from daemons.order_service.relay import Relays, set_back
from daemons.order_service.settlement import CannotSettle, Delivery, Outcome, settle
from daemons.order_service.tail import Tail
from daemons.order_service.teller import Teller

BACKOFF_S = 0.2
# At most one rewind in this time: the records that it brings need a moment to arrive.
REWIND_EVERY_S = 0.5
RECORDS = 200
# Rows of orders and trades for one TX2, as far as whole batches allow: a backlog in a single one would take
# longer than a lease lasts.
TX2_ROWS = 5_000

TOLD = Counter("exchange_order_updates_total", "Batches whose updates were published", ["partition"])

log = get_logger(__name__)

_POSITION = "SELECT settlements_offset, stopped FROM watermarks WHERE partition = %s"


class PartitionStopped(Exception):
    """Settling needs a person, because of the record at `offset` when there is one."""

    def __init__(self, reason: str, *, offset: int | None = None, sequence: int | None = None) -> None:
        super().__init__(reason)
        self.offset = offset
        self.sequence = sequence
        self.record: bytes | None = None


class _StoppedBefore(Exception):
    """It is written already why."""


class _Impossible(Exception):
    """TX2 cannot take these settlements; nothing has changed."""


class Settler:
    """Settles the partitions that this process leads; `run` goes on beside `lead`."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        markets: Markets,
        relays: Relays,
        teller: Teller,
        stopped: Callable[[int, str], None],
        reached: Callable[[int, int], None],
    ) -> None:
        """`stopped(partition, why)`, "" when it goes on; `reached(partition, sequence)`: all is settled."""
        self._settings = settings
        self._topics = topics(settings)
        self._producer = producer
        self._markets = markets
        self._relays = relays
        self._teller = teller
        self._stopped = stopped
        self._reached = reached
        self._rewound_s: dict[int, float] = {}
        self._tails = {
            partition: Tail(settings, self._topics.settlements, partition)
            for partition in range(settings.partitions)
        }
        self._sessions = Spares(
            partial(Session.open, settings.postgres_url, "order-service tx2", by_key=True)
        )

    async def run(self) -> None:
        """Read along in every partition until cancelled; without this nobody settles."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._sessions.keep, self._settings.partitions)
            for tail in self._tails.values():
                group.start_soon(tail.run)

    async def lead(self, lease: Lease) -> None:
        """Settle the lease's partition until the lease ends or the partition stops."""
        partition = lease.partition
        while True:
            try:
                async with self._sessions.session() as connection:
                    await self._settle_all(lease, connection)
                    return
            except (psycopg.Error, OSError, KafkaError) as error:
                if isinstance(error, psycopg.Error) and not db.is_transient(error):
                    await self._stop(lease, PartitionStopped(f"PostgreSQL refused: {error}"))
                log.warning("settler starts again", partition=partition, error=str(error) or repr(error))
                await anyio.sleep(BACKOFF_S)
            except PartitionStopped as stopped:
                await self._stop(lease, stopped)
            except _StoppedBefore as reason:
                self._say_stopped(partition, str(reason))
                await self._until_resumed(partition)

    async def _settle_all(self, lease: Lease, connection: db.Connection) -> None:
        """Go on where the last settler had told everything, until the lease is gone."""
        partition = lease.partition
        cursor = await connection.execute(_POSITION, [partition])
        row = await cursor.fetchone()
        assert row is not None
        told_offset, stopped = row
        if stopped is not None:
            raise _StoppedBefore(stopped)
        await stops.gone_on(connection, partition, SETTLEMENT, lease.token)
        STOPPED.labels(partition).set(0)
        self._stopped(partition, "")
        passed = await stops.read_passed(connection, self._topics.settlements, partition)
        trips = Trips(connection)
        self._teller.begin(partition)
        tail = self._tails[partition]
        tail.begin(told_offset + 1)
        try:
            await self._settle_from(lease, trips, tail, told_offset, passed)
        finally:
            tail.end()

    async def _settle_from(
        self,
        lease: Lease,
        trips: Trips,
        tail: Tail,
        told_offset: int,
        passed: Collection[tuple[int, bytes]],
    ) -> None:
        partition = lease.partition
        joiner = SettlementJoiner()
        while True:
            records = await tail.take(RECORDS)
            try:
                for deliveries in _rounds(joiner, records, partition, passed):
                    if not await self._settle_and_tell(lease, trips, deliveries, told_offset):
                        return
            except PartitionStopped as stopped:
                stopped.record = next((one.value for one in records if one.offset == stopped.offset), None)
                raise
            if not joiner.pending:  # A settlement of which a part is missing is read again from its first.
                told_offset = records[-1].offset

    async def _settle_and_tell(
        self, lease: Lease, trips: Trips, deliveries: Sequence[Delivery], told_offset: int
    ) -> bool:
        """False when the lease is lost. Where one of several is impossible, each is tried alone."""
        partition = lease.partition
        why = ""
        try:
            outcome = await self._settle(lease, trips, deliveries, told_offset)
        except _Impossible as error:
            await trips.rollback()
            why = f"TX2 is impossible: {error}"
        else:
            if outcome.lease_lost:
                return False
            if outcome.told:
                self._reached(partition, outcome.told[-1].last_sequence)
            await self._tell(partition, outcome.told)
            why = "its chain does not continue the watermark's: a fork" if outcome.fork else ""
        if why and len(deliveries) == 1:
            raise _stopped_at(deliveries[0], why)
        if why:
            for one in deliveries:
                if not await self._settle_and_tell(lease, trips, [one], told_offset):
                    return False
            return True
        if outcome.gap and self._may_rewind(partition):
            await set_back(trips.connection, partition, "settlement_gap")
            self._relays.wake(partition)
        return True

    def _may_rewind(self, partition: int) -> bool:
        now_s = anyio.current_time()
        if now_s - self._rewound_s.get(partition, -REWIND_EVERY_S) < REWIND_EVERY_S:
            return False
        self._rewound_s[partition] = now_s
        return True

    async def _settle(
        self, lease: Lease, trips: Trips, deliveries: Sequence[Delivery], told_offset: int
    ) -> Outcome:
        if not _markets_of(deliveries) <= self._markets.by_id.keys():
            self._markets.fill([market for market, _ in await list_markets(trips.connection)])
        try:
            return await settle(
                trips,
                deliveries,
                partition=lease.partition,
                settlement_token=lease.token,
                told_offset=told_offset,
                markets=self._markets.by_id,
            )
        except CannotSettle as error:
            raise _Impossible(error.message) from error
        except (KeyError, AssertionError) as error:
            raise _Impossible(repr(error)) from error
        except psycopg.Error as error:
            if db.is_transient(error):
                raise
            raise _Impossible(f"PostgreSQL refused it: {error}") from error

    async def _tell(self, partition: int, settled: Sequence[Settlement]) -> None:
        """Publish what became durable; only the owners of the orders are told of it, by market-data."""
        markets = self._markets.by_id
        values: list[bytes] = []
        size_bytes = 0
        for settlement in settled:
            for value in encode_order_updates(settlement, markets):
                values.append(value)
                size_bytes += len(value)
                if size_bytes >= PART_BYTES:  # Each lets the renewals of the lease pass.
                    await self._publish(partition, values)
                    values, size_bytes = [], 0
        if values:
            await self._publish(partition, values)
        TOLD.labels(partition).inc(len(settled))

    async def _publish(self, partition: int, values: Sequence[bytes]) -> None:
        """The one way out for order updates: whoever is to hear of them hears of them here, in this order."""
        self._teller.tell(partition, values)
        topic = self._topics.order_updates
        await self._producer.send_many([Message(topic, partition, value) for value in values])

    async def _stop(self, lease: Lease, stopped: PartitionStopped) -> None:
        """Stop loudly and keep everything; another instance would find the same, so the lease is kept."""
        partition, reason, topic = lease.partition, str(stopped), self._topics.settlements
        log.error("partition stopped", partition=partition, reason=reason, topic=topic, offset=stopped.offset)
        self._say_stopped(partition, reason)
        try:
            async with db.connect(self._settings.postgres_url, "order-service stop") as connection:
                await stops.stop(
                    connection,
                    partition,
                    SETTLEMENT,
                    reason,
                    topic=topic if stopped.record is not None else None,
                    offset=stopped.offset if stopped.record is not None else None,
                    record=stopped.record,
                    sequence=stopped.sequence,
                    token=lease.token,
                )
        except psycopg.Error as error:
            log.warning("stop not written", partition=partition, error=str(error))
        await self._until_resumed(partition)

    def _say_stopped(self, partition: int, reason: str) -> None:
        STOPPED.labels(partition).set(1)
        self._stopped(partition, reason)

    async def _until_resumed(self, partition: int) -> None:
        """An operator's act clears `watermarks.stopped`."""
        while True:
            await anyio.sleep(1.0)
            try:
                async with db.connect(self._settings.postgres_url, "order-service stop") as connection:
                    cursor = await connection.execute(_POSITION, [partition])
                    row = await cursor.fetchone()
            except psycopg.Error as error:
                log.warning("still stopped", partition=partition, error=str(error))
                continue
            if row is not None and row[1] is None:
                return


def _markets_of(deliveries: Sequence[Delivery]) -> set[int]:
    batches = [delivery.settlement for delivery in deliveries]
    set_or_traded = {state.market_id for batch in batches for state in batch.markets}
    return set_or_traded | {state.market_id for batch in batches for state in batch.orders}


def _rounds(
    joiner: SettlementJoiner,
    records: Sequence[Record],
    partition: int,
    passed: Collection[tuple[int, bytes]] = (),
) -> Iterator[list[Delivery]]:
    """What goes into one TX2 each: never nothing, and decoded only when its turn comes.

    `passed`: the records, by offset and SHA-256, that an operator had passed over.
    """
    deliveries: list[Delivery] = []
    rows = 0
    for record in records:
        if passed and (record.offset, sha256(record.value).digest()) in passed:
            log.warning("record passed over", partition=partition, offset=record.offset)
            continue
        try:
            settlement = joiner.add(record.value, record.token)
            _check_place(settlement, partition)
        except Undecodable as error:
            if deliveries:  # What came before it is settled first.
                yield deliveries
            where = f"exchange.settlements, partition {partition}, offset {record.offset}"
            raise PartitionStopped(f"{where} cannot be read: {error}", offset=record.offset) from error
        if settlement is None:
            continue
        deliveries.append(Delivery(settlement, record.token, record.offset, record.source_offset))
        rows += len(settlement.orders) + len(settlement.trades)
        if rows >= TX2_ROWS:
            yield deliveries
            deliveries, rows = [], 0
    if deliveries:
        yield deliveries


def _check_place(settlement: Settlement | None, partition: int) -> None:
    """Half a record can be bytes that mean something; one without a place in the log is no settlement."""
    if settlement is not None and not (
        settlement.partition == partition
        and 0 < settlement.first_sequence <= settlement.last_sequence
        and len(settlement.chain) == len(settlement.previous_chain) == 32
    ):
        raise Undecodable("settlement: it has no place in the partition's log")


def _stopped_at(delivery: Delivery, why: str) -> PartitionStopped:
    batch = delivery.settlement
    return PartitionStopped(
        f"exchange.settlements, partition {batch.partition}, offset {delivery.offset}, the commands"
        f" {batch.first_sequence} to {batch.last_sequence}: {why}",
        offset=delivery.offset,
        sequence=batch.first_sequence,
    )
