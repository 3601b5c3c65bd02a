"""The settler: exchange.settlements -> TX2 -> exchange.order_updates, one leader for each partition.

Its position moves after the updates of a batch are published (I11): what a crash left unsaid is read
again, found settled, and said again.

Does not promise: that a partition never stops. What contradicts the exchange's own records stops it,
in the metrics, in the readiness and in `watermarks.stopped`, until a person looks.
"""

from collections.abc import Callable, Iterator, Sequence

import anyio
import psycopg
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge

from common import db
from common.admin import list_markets
from common.config import Settings
from common.core.messages import Settlement
from common.kafka import Message, Producer, Reader, Record, reader
from common.lease import Lease
from common.telemetry import get_logger
from common.topics import topics
from common.wire import PART_BYTES, SettlementJoiner, Undecodable, encode_order_updates
from daemons.order_service.markets import Markets
from daemons.order_service.relay import Relays, set_back
from daemons.order_service.settlement import CannotSettle, Delivery, Outcome, settle

BACKOFF_S = 0.2
# At most one rewind in this time: the records that it brings need a moment to arrive.
REWIND_EVERY_S = 0.5
RECORDS = 200
# Rows of orders and trades for one TX2, as far as whole batches allow: a backlog in a single one would take
# longer than a lease lasts.
TX2_ROWS = 5_000

STOPPED = Gauge("exchange_partition_stopped", "1 while settling is stopped and needs a person", ["partition"])
TOLD = Counter("exchange_order_updates_total", "Batches whose updates were published", ["partition"])

log = get_logger(__name__)

_POSITION = "SELECT settlements_offset, stopped FROM watermarks WHERE partition = %s"
_STOP = "UPDATE watermarks SET stopped = %s WHERE partition = %s"


class PartitionStopped(Exception):
    """Settling needs a person; the reason is in `watermarks.stopped`."""


class Settler:
    """Settles the partitions that this process leads; `lead` is what `share_partitions` runs."""

    def __init__(
        self,
        settings: Settings,
        producer: Producer,
        markets: Markets,
        relays: Relays,
        stopped: Callable[[int, str], None],
    ) -> None:
        self._settings = settings
        self._topics = topics(settings)
        self._producer = producer
        self._markets = markets
        self._relays = relays
        self._stopped = stopped

    async def lead(self, lease: Lease) -> None:
        """Settle the lease's partition until the lease ends or the partition stops."""
        partition = lease.partition
        while True:
            try:
                name = f"order-service tx2 {partition}"
                async with db.connect(self._settings.postgres_url, name) as connection:
                    await self._settle_all(lease, connection)
                    return
            except (psycopg.Error, OSError, KafkaError) as error:
                if isinstance(error, psycopg.Error) and not db.is_transient(error):
                    await self._stop(partition, f"PostgreSQL refused TX2: {error}")
                log.warning("settler starts again", partition=partition, error=str(error) or repr(error))
                await anyio.sleep(BACKOFF_S)
            except PartitionStopped as reason:
                await self._stop(partition, str(reason))

    async def _settle_all(self, lease: Lease, connection: db.Connection) -> None:
        """Go on where the last settler had told everything, until the lease is gone."""
        partition = lease.partition
        cursor = await connection.execute(_POSITION, [partition])
        row = await cursor.fetchone()
        assert row is not None
        told_offset, stopped = row
        if stopped is not None:
            raise PartitionStopped(stopped)
        STOPPED.labels(partition).set(0)
        self._stopped(partition, "")
        start = told_offset + 1
        async with reader(
            self._settings, self._topics.settlements, partition, lambda _earliest, _end: start
        ) as source:
            await self._settle_from(lease, connection, source, told_offset)

    async def _settle_from(
        self, lease: Lease, connection: db.Connection, source: Reader, told_offset: int
    ) -> None:
        partition = lease.partition
        joiner = SettlementJoiner()
        rewound_s = -REWIND_EVERY_S
        while True:
            records = await source.poll(max_records=RECORDS)
            if not records:
                continue
            for deliveries in _rounds(joiner, records, partition):
                outcome = await self._settle(lease, connection, deliveries, told_offset)
                if outcome.lease_lost:
                    return
                await self._tell(partition, outcome.told)
                if outcome.fork:
                    raise PartitionStopped("a settlement's chain does not continue the watermark's: a fork")
                if outcome.gap and anyio.current_time() - rewound_s >= REWIND_EVERY_S:
                    rewound_s = anyio.current_time()
                    await set_back(connection, partition, "settlement_gap")
                    self._relays.wake(partition)
            if not joiner.pending:  # A settlement of which a part is missing is read again from its first.
                told_offset = records[-1].offset

    async def _settle(
        self, lease: Lease, connection: db.Connection, deliveries: Sequence[Delivery], told_offset: int
    ) -> Outcome:
        if not _markets_of(deliveries) <= self._markets.by_id.keys():
            self._markets.fill([market for market, _ in await list_markets(connection)])
        try:
            return await settle(
                connection,
                deliveries,
                partition=lease.partition,
                settlement_token=lease.token,
                told_offset=told_offset,
                markets=self._markets.by_id,
            )
        except (CannotSettle, KeyError, AssertionError) as error:
            raise PartitionStopped(f"TX2 is impossible: {error!r}") from error

    async def _tell(self, partition: int, settled: Sequence[Settlement]) -> None:
        """Publish what became durable; only the owners of the orders are told of it, by market-data."""
        markets = self._markets.by_id
        messages: list[Message] = []
        size_bytes = 0
        for settlement in settled:
            for value in encode_order_updates(settlement, markets):
                messages.append(Message(self._topics.order_updates, partition, value))
                size_bytes += len(value)
                if size_bytes >= PART_BYTES:  # Each lets the renewals of the lease pass.
                    await self._producer.send_many(messages)
                    messages, size_bytes = [], 0
        if messages:
            await self._producer.send_many(messages)
        TOLD.labels(partition).inc(len(settled))

    async def _stop(self, partition: int, reason: str) -> None:
        """Stop loudly and keep everything; another instance would find the same, so the lease is kept."""
        log.error("partition stopped", partition=partition, reason=reason)
        STOPPED.labels(partition).set(1)
        self._stopped(partition, reason)
        try:
            async with db.connect(self._settings.postgres_url, "order-service stop") as connection:
                await connection.execute(_STOP, [reason, partition])
        except psycopg.Error as error:
            log.warning("stop not written", partition=partition, error=str(error))
        await self._until_resumed(partition)

    async def _until_resumed(self, partition: int) -> None:
        """An operator clears `watermarks.stopped` when the cause is gone."""
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


def _rounds(joiner: SettlementJoiner, records: Sequence[Record], partition: int) -> Iterator[list[Delivery]]:
    """What goes into one TX2 each: never nothing, and decoded only when its turn comes."""
    deliveries: list[Delivery] = []
    rows = 0
    for record in records:
        try:
            settlement = joiner.add(record.value, record.token)
        except Undecodable as error:
            if deliveries:  # What came before it is settled first.
                yield deliveries
            where = f"exchange.settlements, partition {partition}, offset {record.offset}"
            raise PartitionStopped(f"{where} cannot be read: {error}") from error
        if settlement is None:
            continue
        deliveries.append(Delivery(settlement, record.token, record.offset, record.source_offset))
        rows += len(settlement.orders) + len(settlement.trades)
        if rows >= TX2_ROWS:
            yield deliveries
            deliveries, rows = [], 0
    if deliveries:
        yield deliveries
