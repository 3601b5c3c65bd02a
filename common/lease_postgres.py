"""Leases as rows of `partition_leader_locks`, on PostgreSQL's clock, with advisory locks for speed (I5).

Each lease that is held has a session of its own, which renews it, holds the advisory lock of (service,
partition, token), and does nothing else. Whoever finds that lock free while the row has not expired
knows that the holder's process or connection is dead. The lock of a new token is taken *before* the
UPDATE that makes the token current, so nobody ever sees a living holder's lock free; and once the lock of
the current token is free, it stays so, because nobody takes the lock of a token twice.

The look-out session sees the leases of others, and attends: it keeps this instance's row of
`service_members` fresh and reads those of the others.

A takeover changes a column of a unique index, so it waits for transactions that hold the row FOR KEY
SHARE (I6); a renewal does not, and passes them. Needs asyncio (psycopg) and a direct connection: a
pooler that hands out sessions per transaction would lose the advisory locks.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import LiteralString, Self

import anyio
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from common.core.errors import Unavailable
from common.db import Connection
from common.lease_base import Attendance, Lease, Member, Standing
from common.lease_sessions import open_for_lease, open_lookout
from common.spares import Session, Spares
from common.telemetry import get_logger

LOOK_S = 2.0  # Longest wait for an answer of the look-out session.
FORGET_S = 60.0  # How long after its end the row of a member that did not leave is deleted.

_LOOK = """
    SELECT partition, fencing_token, expires_at <= clock_timestamp(),
           CASE WHEN expires_at > clock_timestamp() THEN pg_try_advisory_xact_lock_shared(
               hashtextextended(concat_ws('/', 'lease', service, partition, fencing_token), 0)) END
      FROM partition_leader_locks WHERE service = %s AND partition = ANY(%s)
"""  # Shared, and let go with the statement: those who look do not disturb one another.
_INSERT = """
    INSERT INTO partition_leader_locks (service, partition, holder, fencing_token, expires_at)
    VALUES (%s, %s, '', 0, 'epoch') ON CONFLICT DO NOTHING
"""
_LOCK = """
    SELECT pg_try_advisory_lock(
               hashtextextended(concat_ws('/', 'lease', %s::text, %s::integer, %s::bigint), 0)),
           set_config('application_name', %s, false)
"""
_TAKE = """
    UPDATE partition_leader_locks
       SET fencing_token = fencing_token + 1, holder = %s,
           expires_at = clock_timestamp() + make_interval(secs => %s)
     WHERE service = %s AND partition = %s AND fencing_token = %s
       AND (expires_at <= clock_timestamp() OR pg_try_advisory_xact_lock_shared(
               hashtextextended(concat_ws('/', 'lease', service, partition, fencing_token), 0)))
"""
_RENEW = """
    UPDATE partition_leader_locks SET expires_at = clock_timestamp() + make_interval(secs => %s)
     WHERE service = %s AND partition = %s AND fencing_token = %s AND expires_at > clock_timestamp()
"""
_RELEASE = """
    UPDATE partition_leader_locks SET expires_at = clock_timestamp()
     WHERE service = %s AND partition = %s AND fencing_token = %s AND expires_at > clock_timestamp()
"""
_ATTEND = """
    WITH me AS (
        INSERT INTO service_members AS m (service, member, ready, since, expires_at)
        VALUES (%(service)s, %(me)s, %(ready)s, clock_timestamp(),
                clock_timestamp() + make_interval(secs => %(ttl_s)s))
        ON CONFLICT (service, member) DO UPDATE
           SET ready = excluded.ready, expires_at = excluded.expires_at,
               since = CASE WHEN %(joins)s OR m.ready <> excluded.ready OR m.expires_at <= clock_timestamp()
                            THEN excluded.since ELSE m.since END
        RETURNING member, ready, since)
    SELECT NULL::integer, member, ready, extract(epoch FROM clock_timestamp() - since)::float8 FROM me
     UNION ALL
    SELECT NULL, member, ready, extract(epoch FROM clock_timestamp() - since)::float8
      FROM service_members
     WHERE service = %(service)s AND member <> %(me)s AND expires_at > clock_timestamp()
     UNION ALL
    SELECT partition, holder, NULL, NULL
      FROM partition_leader_locks WHERE service = %(service)s AND expires_at > clock_timestamp()
"""
_LEAVE = "DELETE FROM service_members WHERE service = %s AND member = %s"
_FORGET = """
    DELETE FROM service_members WHERE (service, member) IN (
        SELECT service, member FROM service_members
         WHERE service = %s AND expires_at < clock_timestamp() - make_interval(secs => %s)
           FOR UPDATE SKIP LOCKED)
"""

Parameters = Sequence[object] | Mapping[str, object]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Row:
    token: int
    standing: Standing


class PostgresLeases:
    """A `LeaseStore`, and a block around it; `holder` names this process for people."""

    def __init__(self, url: str, holder: str) -> None:
        self._url = url
        self._holder = holder
        self._held: dict[tuple[str, int, int], Session] = {}
        self._spares = Spares(partial(open_for_lease, url))
        self._lookout: Session | None = None
        self._looking = anyio.Lock()
        self._attends: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sessions = [*self._held.values(), *([self._lookout] if self._lookout else [])]
        self._held.clear()
        self._lookout = None
        with anyio.CancelScope(shield=True):  # Closing sends nothing that could be waited for.
            for session in sessions:
                await session.close()
            await self._spares.close()

    async def look(self, service: str, partitions: Sequence[int]) -> Mapping[int, Standing]:
        """See `LeaseStore`; a partition that nobody has ever held is vacant.

        While nothing is to be taken, it also keeps a spare session for each lease that it may have to take.
        """
        rows = await self._rows(service, partitions)
        found = {
            partition: rows[partition].standing if partition in rows else Standing.VACANT
            for partition in partitions
        }
        if all(standing is Standing.HELD for standing in found.values()):
            await self._spares.tend(len(found))
        return found

    async def attend(self, service: str, ready: bool, ttl_s: float) -> Attendance:
        """See `LeaseStore`; one statement, but for the first time."""
        joins = service not in self._attends
        if joins:
            await self._ask(_FORGET, (service, FORGET_S))
        about = {"service": service, "me": self._holder, "ready": ready, "ttl_s": ttl_s, "joins": joins}
        rows = await self._ask(_ATTEND, about)
        self._attends.add(service)
        return Attendance(
            self._holder,
            {name: Member(is_ready, steady_s) for number, name, is_ready, steady_s in rows if number is None},
            {number: name for number, name, *_ in rows if number is not None},
        )

    async def leave(self, service: str) -> None:
        """See `LeaseStore`; a row that is not deleted expires."""
        if service in self._attends:
            self._attends.discard(service)
            await self._ask(_LEAVE, (service, self._holder))

    async def acquire(self, service: str, partition: int, lease_s: float) -> Lease | None:
        """See `LeaseStore`; waits for the transactions that the last holder has under way."""
        row = (await self._rows(service, [partition])).get(partition)
        if row is None:
            await self._ask(_INSERT, (service, partition))
            row = _Row(0, Standing.VACANT)
        if row.standing is Standing.HELD:
            return None
        with _unavailable():
            return await self._take(service, partition, row.token, lease_s)

    async def renew(self, lease: Lease, lease_s: float) -> bool:
        """See `LeaseStore`; a session that is gone has lost its lease, whatever the row says."""
        session = self._held.get(_key(lease))
        if session is None:
            return False
        with _unavailable():
            return await _renew(session.connection, lease, lease_s)

    async def release(self, lease: Lease) -> None:
        """See `LeaseStore`; when the row cannot be written, the end of the session says the same."""
        session = self._held.pop(_key(lease), None)
        if session is None:
            return
        try:
            if session.connection.pgconn.transaction_status == TransactionStatus.IDLE:
                await session.connection.execute(_RELEASE, (lease.service, lease.partition, lease.token))
        except psycopg.Error as error:
            log.info("lease left to its session's end", partition=lease.partition, error=repr(error))
        finally:
            await session.close()

    async def disturbed(self, lease: Lease) -> None:
        """Return when the server says something unasked, which mostly is that the session has ended."""
        session = self._held.get(_key(lease))
        if session is None or session.connection.closed:
            return
        # A copy: psycopg itself watches the original while a statement runs.
        copy = os.dup(session.connection.fileno())
        try:
            await anyio.wait_readable(copy)
        finally:
            os.close(copy)

    async def _take(self, service: str, partition: int, seen_token: int, lease_s: float) -> Lease | None:
        """Take over from the token that was looked at, in its own session; None when a rival was faster."""
        session = await self._spares.take()
        lease: Lease | None = None
        try:
            lease = await self._take_in(session.connection, service, partition, seen_token, lease_s)
            if lease is not None:
                self._held[_key(lease)] = session
            return lease
        finally:
            if lease is None:
                await session.close()

    async def _take_in(
        self, connection: Connection, service: str, partition: int, seen_token: int, lease_s: float
    ) -> Lease | None:
        token = seen_token + 1
        name = f"lease {service}/{partition}"[:63]
        with anyio.fail_after(LOOK_S):  # A spare session may have died without a sign.
            cursor = await connection.execute(_LOCK, (service, partition, token, name))
        if await cursor.fetchone() != (True, name):
            return None
        sent_s = anyio.current_time()
        taken = await connection.execute(_TAKE, (self._holder, lease_s, service, partition, seen_token))
        if taken.rowcount == 0:
            return None
        lease = Lease(service, partition, token, self._holder, sent_s)
        waited_s = anyio.current_time() - sent_s
        if waited_s < lease_s / 3:
            return lease
        # The row's time ran while the takeover waited for transactions: start it anew.
        lease = replace(lease, sent_s=anyio.current_time())
        return lease if await _renew(connection, lease, lease_s) else None

    async def _rows(self, service: str, partitions: Sequence[int]) -> dict[int, _Row]:
        rows = await self._ask(_LOOK, (service, list(partitions)))
        return {partition: _Row(token, _standing(*rest)) for partition, token, *rest in rows}

    async def _ask(self, query: LiteralString, parameters: Parameters) -> list[TupleRow]:
        """One statement on the look-out session, which is opened anew after any trouble."""
        async with self._looking:
            answered = False
            try:
                with _unavailable(), anyio.fail_after(LOOK_S):
                    if self._lookout is None:
                        self._lookout = await open_lookout(self._url)
                    cursor = await self._lookout.connection.execute(query, parameters)
                    rows = await cursor.fetchall() if cursor.description else []
                answered = True
                return rows
            finally:
                if not answered and self._lookout is not None:
                    lookout, self._lookout = self._lookout, None
                    await lookout.close()


async def _renew(connection: Connection, lease: Lease, lease_s: float) -> bool:
    cursor = await connection.execute(_RENEW, (lease_s, lease.service, lease.partition, lease.token))
    return cursor.rowcount == 1


def _standing(expired: bool, orphaned: bool | None) -> Standing:
    if expired:
        return Standing.VACANT
    return Standing.ORPHANED if orphaned else Standing.HELD


def _key(lease: Lease) -> tuple[str, int, int]:
    return lease.service, lease.partition, lease.token


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OSError) as error:  # TimeoutError is an OSError.
        raise Unavailable(f"the leases cannot be reached: {error}") from error
