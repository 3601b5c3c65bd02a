"""The sessions of a lease store: the one that looks out, and one for each lease."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.spares import Session

# The longest that a takeover waits for the transactions of the old leader; the reaper of order-service
# ends those after 2 s. A frozen client would otherwise keep a rival's backend waiting for ever.
TAKEOVER_MS = 5_000
NOTICE_DEATH_MS = 500  # How soon a backend that waits notices that its client is gone.

_FOR_LEASES = """
    SELECT set_config('lock_timeout', %s, false), set_config('client_connection_check_interval', %s, false)
"""
# What is lost with a crash of PostgreSQL here is said again within a second: no wait for the disk.
_FOR_LOOKING = "SELECT set_config('synchronous_commit', 'off', false)"


async def open_lookout(url: str) -> Session:
    """The session that looks and attends. Raises psycopg's errors."""
    session = await Session.open(url, "lease look-out")
    async with _closed_on_error(session):
        await session.connection.execute(_FOR_LOOKING)
    return session


async def open_for_lease(url: str) -> Session:
    """A session that can take a lease and is then named after it. Raises psycopg's errors."""
    session = await Session.open(url, "lease spare")
    async with _closed_on_error(session):
        await session.connection.execute(_FOR_LEASES, (f"{TAKEOVER_MS}ms", f"{NOTICE_DEATH_MS}ms"))
    return session


@asynccontextmanager
async def _closed_on_error(session: Session) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await session.close()
        raise
