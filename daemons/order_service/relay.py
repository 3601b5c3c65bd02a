"""The relay: each partition's outbox to exchange.orders, in sequence, at least once (I3).

Every order-service relays; whoever gets the partition's cursor row publishes, the others skip it. A
wake-up after each commit makes it immediate, polling makes it certain.

Does not promise: exactly once. The cursor moves after the acknowledgement, so a crash between the two
publishes again, and readers drop what they have seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import psycopg
from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge, Histogram
from psycopg.rows import TupleRow

from common import db
from common.kafka import Message, Producer
from common.telemetry import get_logger
from common.trip import Asked, Trips
from common.wire import encode_batch
from daemons.order_service.backlog import Backlog

POLL_S = 0.2
# Another relay holds the cursor and is publishing.
SKIPPED_S = 0.02
BACKOFF_S, REFUSED_S = 0.2, 2.0
ROWS = 200
# The whole transaction must end before idle_in_transaction_session_timeout ends its session.
PUBLISH_S = db.IDLE_IN_TRANSACTION_MS / 1000 * 0.8
# A watermark that stands this long behind the cursor has lost its records on the way.
STALL_S = 3.0
STALL_MOST_S = 60.0

_TAKE_CURSOR = """
SELECT next_sequence, last_offset FROM relay_cursors WHERE partition = %s FOR UPDATE SKIP LOCKED
"""
# A statement of its own, so that its snapshot is younger than the lock on the cursor.
_PENDING = """
SELECT first_sequence, last_sequence, time_us, previous_chain, chain, commands FROM outbox
WHERE partition = %s AND first_sequence >= (SELECT next_sequence FROM relay_cursors WHERE partition = %s)
ORDER BY first_sequence LIMIT %s
"""
_IS_PENDING = """
SELECT EXISTS (SELECT FROM outbox o JOIN relay_cursors c USING (partition)
               WHERE o.partition = %s AND o.first_sequence >= c.next_sequence)
"""
_MOVE = "UPDATE relay_cursors SET next_sequence = %s, last_offset = %s WHERE partition = %s"
_REWIND = """
UPDATE relay_cursors c SET next_sequence = w.sequence + 1
FROM watermarks w WHERE w.partition = c.partition AND c.partition = %s RETURNING c.next_sequence
"""
_PROGRESS = """
SELECT w.sequence, c.next_sequence, w.stopped IS NOT NULL, s.last_sequence
FROM watermarks w JOIN relay_cursors c USING (partition) JOIN shards s USING (partition) WHERE partition = %s
"""

PUBLISHED = Counter("exchange_relay_batches_total", "Command batches published", ["partition"])
REWINDS = Counter("exchange_relay_rewinds_total", "Cursors set back to the watermark", ["partition", "cause"])
ERRORS = Counter("exchange_relay_errors_total", "Rounds of the relay that failed", ["partition"])
SECONDS = Histogram(
    "exchange_relay_publish_seconds",
    "From the look at the outbox to the acknowledgement",
    buckets=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1),
)
BACKLOG = Gauge("exchange_outbox_backlog_commands", "Commands above the relay's cursor", ["partition"])
LAG = Gauge("exchange_watermark_lag_commands", "Commands that are durable and not settled", ["partition"])

log = get_logger(__name__)


class Relays:
    """Wakes the relays of this process; `wake` may be called at any time and never blocks."""

    def __init__(self, partitions: int) -> None:
        self._events = [anyio.Event() for _ in range(partitions)]

    @property
    def partitions(self) -> Sequence[int]:
        return range(len(self._events))

    def wake(self, *partitions: int) -> None:
        for partition in partitions:
            self._events[partition].set()

    async def wait(self, partition: int) -> bool:
        """Until somebody wakes the partition (True), or it is time to look anyway (False)."""
        with anyio.move_on_after(POLL_S):
            await self._events[partition].wait()
        woken = self._events[partition].is_set()
        self._events[partition] = anyio.Event()
        return woken


async def relay_partition(
    postgres_url: str, producer: Producer, topic: str, relays: Relays, partition: int
) -> None:
    """Publish the partition's outbox for ever; what fails is tried again on a new session.

    What does not go out in time is tried in smaller pieces: the same rows again would be late again.
    """
    rows = ROWS
    while True:
        try:
            async with db.connect(
                postgres_url, f"order-service relay {partition}", by_key=True
            ) as connection:
                # The cursor is a hint: losing its last move publishes again, which readers expect.
                await connection.execute("SET synchronous_commit = off")
                trips = Trips(connection)
                while True:
                    pending = await relays.wait(partition) or await _is_pending(trips, partition)
                    while pending:
                        pending = await _publish_some(trips, producer, topic, partition, rows)
                        rows = min(rows * 2, ROWS)
        except (psycopg.Error, OSError, KafkaError, TimeoutError) as error:
            if isinstance(error, TimeoutError):
                rows = max(rows // 4, 1)
            ERRORS.labels(partition).inc()
            # What trying again may not mend needs a person, but not at the cost of the other partitions.
            mends = not isinstance(error, psycopg.Error) or db.is_transient(error)
            say = log.warning if mends else log.error
            say("relay starts again", partition=partition, error=str(error) or repr(error))
            await anyio.sleep(BACKOFF_S if mends else REFUSED_S)


async def _is_pending(trips: Trips, partition: int) -> bool:
    """A look without any lock."""
    [[(pending,)]] = await trips.go([(_IS_PENDING, [partition])])
    return bool(pending)


async def _publish_some(trips: Trips, producer: Producer, topic: str, partition: int, limit: int) -> bool:
    """One transaction: take the cursor, publish what is there, move the cursor. True: there is more.

    The look for more comes after the cursor was let go: what was committed meanwhile, and skipped by a
    relay that found the cursor taken, is seen by this one.
    """
    with anyio.fail_after(PUBLISH_S):
        _, cursor, rows = await trips.go(
            [("BEGIN", ()), (_TAKE_CURSOR, [partition]), (_PENDING, [partition, partition, limit])]
        )
        if not cursor or not rows:
            await trips.rollback()
            await anyio.sleep(0 if cursor else SKIPPED_S)
            return await _is_pending(trips, partition)
        with SECONDS.time():
            offsets = await producer.send_many(
                [Message(topic, partition, _record(partition, row)) for row in rows]
            )
        PUBLISHED.labels(partition).inc(len(rows))
        [(_, last_offset)] = cursor
        asked: list[Asked] = [(_MOVE, [rows[-1][1] + 1, offsets[-1], partition])]
        if offsets[-1] <= last_offset:  # Offsets only grow: this is another topic of the same name.
            asked.append((_REWIND, [partition]))
            REWINDS.labels(partition, "new_topic").inc()
            log.warning("set back: the topic is new", partition=partition, offset=offsets[-1])
        *_, [(pending,)] = await trips.go([*asked, ("COMMIT", ()), (_IS_PENDING, [partition])])
        return bool(pending)


def _record(partition: int, row: TupleRow) -> bytes:
    first_sequence, _, time_us, previous_chain, chain, commands = row
    return encode_batch(
        partition=partition,
        first_sequence=first_sequence,
        time_us=time_us,
        previous_chain=previous_chain,
        chain=chain,
        commands=commands,
    )


async def set_back(connection: db.Connection, partition: int, cause: str) -> int:
    """Publish again from the watermark on; gives the sequence that comes next."""
    cursor = await connection.execute(_REWIND, [partition])
    row = await cursor.fetchone()
    assert row is not None, f"partition {partition} does not exist"
    REWINDS.labels(partition, cause).inc()
    log.warning("relay set back to the watermark", partition=partition, cause=cause, next_sequence=row[0])
    return int(row[0])


@dataclass(slots=True)
class _Stall:
    """Since when a watermark has not moved, and how long to wait before the next rewind."""

    sequence: int = -1
    since_s: float = 0.0
    patience_s: float = STALL_S

    def is_over(self, sequence: int, waiting: bool, now_s: float) -> bool:
        """True when a rewind is due. Each one for the same watermark waits twice as long as the last."""
        if sequence != self.sequence or not waiting:
            self.sequence, self.since_s, self.patience_s = sequence, now_s, STALL_S
            return False
        if now_s - self.since_s < self.patience_s:
            return False
        self.since_s, self.patience_s = now_s, min(self.patience_s * 2, STALL_MOST_S)
        return True


async def watch_progress(pool: db.Pool, relays: Relays, backlog: Backlog) -> None:
    """Measure backlog and lag, and set a relay back whose watermark stands still behind its cursor."""
    stalls = [_Stall() for _ in relays.partitions]
    while True:
        await anyio.sleep(1.0)
        try:
            async with pool.connection() as connection:
                for partition, stall in enumerate(stalls):
                    await _watch(connection, relays, backlog, partition, stall)
        except Exception as error:
            if not db.is_transient(error):
                raise
            log.warning("progress not seen", error=str(error))


async def _watch(
    connection: db.Connection, relays: Relays, backlog: Backlog, partition: int, stall: _Stall
) -> None:
    cursor = await connection.execute(_PROGRESS, [partition])
    row = await cursor.fetchone()
    assert row is not None
    watermark, next_sequence, stopped, last_sequence = row
    BACKLOG.labels(partition).set(last_sequence + 1 - next_sequence)
    LAG.labels(partition).set(last_sequence - watermark)
    backlog.seen(partition, last_sequence - watermark)
    waiting = next_sequence > watermark + 1 and not stopped
    if stall.is_over(watermark, waiting, anyio.current_time()):
        await set_back(connection, partition, "stalled")
        relays.wake(partition)
