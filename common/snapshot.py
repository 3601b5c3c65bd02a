"""One snapshot of the database for those who read much of it: the audit and the replay.

Reads only, and takes no lock that anybody would wait for. While it lasts, though, PostgreSQL keeps what
has been deleted or changed since: hours of it on a busy exchange cost disk space.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.db import Connection

# The reader may think between two questions for longer than a transaction of the exchange may idle.
_IDLE_S = 600
_WORK_MEM_MB = 64


@asynccontextmanager
async def one_snapshot(connection: Connection) -> AsyncIterator[None]:
    """All reads of the body see the database as it is now."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await prefer_whole_tables(connection)
        await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_S}s'".encode())
        yield


async def prefer_whole_tables(connection: Connection) -> None:
    """Plans for this transaction that stay linear, whatever the statistics believe.

    A table that grew since it was last analyzed looks small, and a LIMIT looks like an early end: both
    tempt the planner into loops that a million orders turn into hours.
    """
    await connection.execute("SET LOCAL enable_nestloop = off")
    await connection.execute("SET LOCAL cursor_tuple_fraction = 1")
    await connection.execute(f"SET LOCAL work_mem = '{_WORK_MEM_MB}MB'".encode())
