"""PostgreSQL sessions, each with the limits that keep a stopped process from stopping others.

Does not promise: retries. Who starts a transaction knows whether it may be run again; `is_transient`
only says that the error would not come back by itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

# A session whose client hangs inside a transaction would keep its row locks for ever.
IDLE_IN_TRANSACTION_MS = 1_000
CONNECT_TIMEOUT_S = 5
SILENCE_MS = 8_000  # What is sent and not acknowledged for so long ends the connection.

Connection = psycopg.AsyncConnection[TupleRow]
Pool = AsyncConnectionPool[Connection]

# Lost connection, serialization, resources, not ready, intervention, system; idle-in-transaction
# time-out and read-only transaction (a failover under way).
_TRANSIENT_CLASSES = ("08", "40", "53", "55", "57", "58")
_TRANSIENT_STATES = ("25P03", "25P02", "25006")


def is_transient(error: BaseException) -> bool:
    """True when the same transaction may succeed on a new connection."""
    if not isinstance(error, psycopg.Error):
        return isinstance(error, OSError)
    if error.sqlstate is None:  # The connection itself, before any answer of the server.
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_TRANSIENT_CLASSES) or error.sqlstate in _TRANSIENT_STATES


# A statement that finds its rows by key has one good plan, whatever its parameters are and however small the
# tables still are. Left alone, PostgreSQL plans most of them anew each time: half of what a lone order costs.
_BY_KEY = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"


def _options(name: str, *, by_key: bool = False) -> dict[str, object]:
    return {
        "autocommit": True,
        "application_name": name[:63],
        "connect_timeout": CONNECT_TIMEOUT_S,
        "options": f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS}"
        + (f" {_BY_KEY}" if by_key else ""),
        # Prepared on the second use: the statements of TX1 and TX2 come again and again.
        "prepare_threshold": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        # Probes go out on a quiet connection only; what was sent into the void is sent again for 15 minutes.
        "tcp_user_timeout": SILENCE_MS,
    }


@asynccontextmanager
async def connect(url: str, name: str, *, by_key: bool = False) -> AsyncIterator[Connection]:
    """One session of its own, in autocommit mode; transactions are opened explicitly.

    `by_key`: all of its statements find their rows by key, so each is planned once.
    Leaving ends the session, and so rolls back a transaction that is under way.
    """
    connection = await psycopg.AsyncConnection.connect(
        url,
        **_options(name, by_key=by_key),  # type: ignore[arg-type]  # a dict of psycopg's own keywords
    )
    try:
        yield connection
    finally:
        # Not `async with connection`: that would commit what a cancellation left half done, or raise
        # when the session is broken.
        await connection.close()


@asynccontextmanager
async def pool(url: str, *, name: str, max_size: int = 8, min_size: int = 1) -> AsyncIterator[Pool]:
    """A pool for queries; opens lazily, so that a start does not need the server to be there."""
    sessions: Pool = AsyncConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        kwargs=_options(name),
        open=False,
        name=name,
        timeout=CONNECT_TIMEOUT_S,
        reconnect_timeout=30,
        check=AsyncConnectionPool.check_connection,
    )
    async with sessions:
        yield sessions
