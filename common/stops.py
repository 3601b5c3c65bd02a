"""Partitions that stopped, and what an operator does about it: the tables of 0005_stops.sql.

`stop` is for the daemons, `resume`, `skip_record` and `skip_command` are for people; `read_skips` and
`is_passed` are for those who read the log. An act of a person is one transaction: it locks the lease of
matching and then the watermark (I9), and raises the fencing token. So what the leader of before has sent
and nobody has settled is refused (I6), and the leader that comes next restores, and reads the skips.

Does not promise: that the cause is gone. What is still wrong stops the partition again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from prometheus_client import Gauge
from psycopg.rows import class_row

from common.core.errors import Conflict, Malformed, NotFound
from common.db import Connection

MATCHING, SETTLEMENT = "matching", "settlement"

STOPPED = Gauge("exchange_partition_stopped", "1 while it stands still and needs a person", ["partition"])

_STOP = """
INSERT INTO partition_stops (partition, service, reason, topic, kafka_offset, record, sequence)
SELECT %(partition)s, %(service)s, %(reason)s, %(topic)s, %(offset)s, %(record)s, %(sequence)s
ON CONFLICT (partition, service) DO UPDATE SET reason = excluded.reason, topic = excluded.topic,
    kafka_offset = excluded.kafka_offset, record = excluded.record, sequence = excluded.sequence,
    stopped_at = excluded.stopped_at
"""
_STOP_SETTLING = "UPDATE watermarks SET stopped = %s WHERE partition = %s"
_CLEAR = "DELETE FROM partition_stops WHERE partition = %s"
_CLEAR_ONE = """
DELETE FROM partition_stops s USING partition_leader_locks l
WHERE (s.partition, s.service) = (%s, %s) AND (l.partition, l.service) = (s.partition, s.service)
  AND l.fencing_token = %s
"""
_STOPS = """
SELECT partition, service, reason, topic, kafka_offset AS offset, length(record) AS record_bytes, sequence,
       stopped_at
FROM partition_stops ORDER BY partition, service
"""
_STOPPED_RECORD = """
SELECT record FROM partition_stops
WHERE partition = %s AND topic = %s AND kafka_offset = %s AND record IS NOT NULL LIMIT 1
"""
_SKIPS = "SELECT sequence FROM operator_acts WHERE partition = %s AND act = 'skip_command'"
_ALL_PASSED = """
SELECT kafka_offset, sha256(record) FROM operator_acts
WHERE act = 'skip_record' AND topic = %s AND partition = %s
"""
_PASSED = """
SELECT EXISTS (SELECT FROM operator_acts WHERE act = 'skip_record' AND topic = %s AND partition = %s
               AND kafka_offset = %s AND sha256(record) = sha256(%s))
"""
_VALID = """
SELECT FROM partition_leader_locks WHERE (service, partition, fencing_token) = (%s, %s, %s) FOR KEY SHARE
"""
# Expired at once, so that it is vacant to those who look: nobody holds the lock of this token. It changes
# a column of a unique index, so it waits for the TX2 that holds the row FOR KEY SHARE.
_RAISE = """
UPDATE partition_leader_locks SET fencing_token = fencing_token + 1, expires_at = clock_timestamp()
WHERE service = 'matching' AND partition = %s
"""
_WATERMARK = "SELECT sequence, stopped FROM watermarks WHERE partition = %s FOR NO KEY UPDATE"
_IS_STOPPED = "SELECT EXISTS (SELECT FROM partition_stops WHERE partition = %s)"
_IS_LOGGED = """
SELECT EXISTS (SELECT FROM outbox WHERE partition = %(partition)s
               AND %(sequence)s BETWEEN first_sequence AND last_sequence)
"""
_ACT = """
INSERT INTO operator_acts (partition, act, reason, operator, topic, kafka_offset, record, sequence)
VALUES (%(partition)s, %(act)s, %(reason)s, %(operator)s, %(topic)s, %(offset)s, %(record)s, %(sequence)s)
"""


class NotStopped(Conflict):
    """The partition is not stopped."""

    code = "PARTITION_NOT_STOPPED"


class AlreadySettled(Conflict):
    """The command is settled: nothing can take its place any more."""

    code = "ALREADY_SETTLED"


class AlreadySkipped(Conflict):
    """The command is skipped already."""

    code = "ALREADY_SKIPPED"


class NotInLog(NotFound):
    """The partition's log has no command of this sequence."""

    code = "NOT_IN_LOG"


class NotTheRecord(Conflict):
    """The partition did not stop at this record."""

    code = "NOT_THE_RECORD"


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a service stopped, and at what; `record_bytes` is the size of the record that is kept."""

    partition: int
    service: str
    reason: str
    topic: str | None
    offset: int | None
    record_bytes: int | None
    sequence: int | None
    stopped_at: datetime


@dataclass(frozen=True, slots=True)
class Act:
    """Who did it, to which partition, and why."""

    partition: int
    operator: str
    reason: str


# ---- the daemons ------------------------------------------------------------------------------------


async def stop(
    connection: Connection,
    partition: int,
    service: str,
    reason: str,
    *,
    topic: str | None = None,
    offset: int | None = None,
    record: bytes | None = None,
    sequence: int | None = None,
    token: int | None = None,
) -> bool:
    """Write down that `service` stands still. The record is kept, for whoever wants to pass over it.

    With `token`, only when it is the valid one: what a leader of yesterday says is not written (False).
    """
    async with connection.transaction():
        if token is not None:
            fence = await connection.execute(_VALID, [service, partition, token])
            if await fence.fetchone() is None:
                return False
        if service == SETTLEMENT:
            await connection.execute(_STOP_SETTLING, [reason, partition])
        where = {"topic": topic, "offset": offset, "record": record, "sequence": sequence}
        await connection.execute(
            _STOP, {"partition": partition, "service": service, "reason": reason, **where}
        )
    return True


async def read_skips(connection: Connection, partition: int) -> frozenset[int]:
    """The sequences of the commands that every engine passes over; for `sequencing.with_skips`."""
    cursor = await connection.execute(_SKIPS, [partition])
    return frozenset(row[0] for row in await cursor.fetchall())


async def is_passed(connection: Connection, topic: str, partition: int, offset: int, record: bytes) -> bool:
    """Whether an operator had this very record passed over; another one at its place is not meant."""
    return await _true(connection, _PASSED, [topic, partition, offset, record])


async def read_passed(connection: Connection, topic: str, partition: int) -> frozenset[tuple[int, bytes]]:
    """The same for all that were: (offset, SHA-256 of the record)."""
    cursor = await connection.execute(_ALL_PASSED, [topic, partition])
    return frozenset((row[0], bytes(row[1])) for row in await cursor.fetchall())


async def gone_on(connection: Connection, partition: int, service: str, token: int) -> None:
    """The service works again, whoever saw to it; the word of a leader of yesterday changes nothing."""
    await connection.execute(_CLEAR_ONE, [partition, service, token])


# ---- people -----------------------------------------------------------------------------------------


async def read_stops(connection: Connection) -> list[Stop]:
    async with connection.cursor(row_factory=class_row(Stop)) as cursor:
        await cursor.execute(_STOPS)
        return await cursor.fetchall()


async def clear(connection: Connection, partition: int) -> None:
    """Forget why the partition stopped; the services look, and go on."""
    await connection.execute(_STOP_SETTLING, [None, partition])
    await connection.execute(_CLEAR, [partition])


async def resume(connection: Connection, act: Act) -> None:
    """Let a stopped partition go on, its cause being gone. Raises NotStopped, and NotFound."""
    async with _acting(connection, act, force=False):
        await _record(connection, act, "resume")


async def skip_record(connection: Connection, act: Act, topic: str, offset: int) -> None:
    """Let the readers pass over the record at which the partition stopped; it is kept.

    Raises NotTheRecord, NotStopped, NotFound. What the record should have said comes again: the gap
    that it leaves sets the relay back, or the leader publishes once more.
    """
    async with _acting(connection, act, force=False):
        cursor = await connection.execute(_STOPPED_RECORD, [act.partition, topic, offset])
        row = await cursor.fetchone()
        if row is None:
            raise NotTheRecord(f"Partition {act.partition} did not stop at a record {topic}:{offset}")
        await _record(connection, act, "skip_record", topic=topic, offset=offset, record=row[0])


async def skip_command(connection: Connection, act: Act, sequence: int, *, force: bool = False) -> None:
    """Let every engine pass over the command: a Place ends CANCELED with its hold returned.

    Raises AlreadySettled, AlreadySkipped, NotInLog, NotFound, and NotStopped unless it is forced.
    """
    async with _acting(connection, act, force=force) as watermark:
        if sequence <= watermark:
            raise AlreadySettled(f"The command {sequence} is settled: the watermark is {watermark}")
        if not await _true(connection, _IS_LOGGED, {"partition": act.partition, "sequence": sequence}):
            raise NotInLog(f"Partition {act.partition} has no command {sequence} that waits for settling")
        if sequence in await read_skips(connection, act.partition):
            raise AlreadySkipped(f"The command {sequence} is skipped already")
        await _record(connection, act, "skip_command", sequence=sequence)


@asynccontextmanager
async def _acting(connection: Connection, act: Act, *, force: bool) -> AsyncIterator[int]:
    """The transaction of an act, to be filled by the body; gives the watermark, which cannot move."""
    if not act.reason.strip():
        raise Malformed("An act of an operator needs a reason", {"reason": "is empty"})
    async with connection.transaction():
        await connection.execute(_RAISE, [act.partition])
        cursor = await connection.execute(_WATERMARK, [act.partition])
        row = await cursor.fetchone()
        if row is None:
            raise NotFound(f"There is no partition {act.partition}")
        watermark, stopped = row
        if not force and stopped is None and not await _true(connection, _IS_STOPPED, [act.partition]):
            raise NotStopped(f"Partition {act.partition} is not stopped")
        yield watermark
        await clear(connection, act.partition)


async def _record(
    connection: Connection,
    act: Act,
    kind: str,
    *,
    topic: str | None = None,
    offset: int | None = None,
    record: bytes | None = None,
    sequence: int | None = None,
) -> None:
    who = {"partition": act.partition, "act": kind, "reason": act.reason, "operator": act.operator}
    what = {"topic": topic, "offset": offset, "record": record, "sequence": sequence}
    await connection.execute(_ACT, who | what)


async def _true(
    connection: Connection, question: LiteralString, given: Sequence[object] | Mapping[str, object]
) -> bool:
    row = await (await connection.execute(question, given)).fetchone()
    return row is not None and bool(row[0])
