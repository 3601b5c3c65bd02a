"""PostgreSQL sessions opened before they are needed.

A takeover that had to connect first would spend most of its time on that (forking a backend, SCRAM). A
spare has nothing to do and holds nothing.
"""

import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import anyio
import psycopg
from psycopg.pq import TransactionStatus

from common.db import Connection, connect

CONNECT_S = 2.0  # Longest wait for a spare session.
MOST_SPARES = 8
TEND_S = 0.2  # Between two looks at the spares.


class Session:
    """A connection whose lifetime is not a block of code."""

    def __init__(self, stack: AsyncExitStack, connection: Connection) -> None:
        self._stack = stack
        self.connection = connection

    @classmethod
    async def open(cls, url: str, name: str, *, by_key: bool = False) -> Self:
        """As `connect`. Raises psycopg's errors."""
        stack = AsyncExitStack()
        return cls(stack, await stack.enter_async_context(connect(url, name, by_key=by_key)))

    @property
    def sound(self) -> bool:
        """At rest and, as far as one can know without asking the server, connected."""
        connection = self.connection
        if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        return not waiting.poll(0)  # At rest, a server mostly has one thing to say: that it hangs up.

    async def close(self) -> None:
        """End it without a word to the server, which may hang."""
        # Not by leaving the block alone: that would commit, and so wait for a server that hangs.
        await self.connection.close()
        await self._stack.aclose()


class Spares:
    """Sessions opened before they are needed."""

    def __init__(self, open_one: Callable[[], Awaitable[Session]]) -> None:
        self._open_one = open_one
        self._sessions: list[Session] = []
        self._tended_s = float("-inf")

    async def take(self) -> Session:
        """A spare that is sound, or else a new session. Raises psycopg's errors."""
        while self._sessions:
            session = self._sessions.pop()
            if session.sound:
                return session
            await session.close()
        return await self._open_one()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """One of them, as `db.connect` would give it. Raises psycopg's errors."""
        session = await self.take()
        try:
            yield session.connection
        finally:
            with anyio.CancelScope(shield=True):  # Closing sends nothing that could be waited for.
                await session.close()

    async def keep(self, wanted: int) -> None:
        """Have so many, until cancelled."""
        try:
            while True:
                await self.tend(wanted)
                await anyio.sleep(TEND_S)
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    async def tend(self, wanted: int) -> None:
        """Come one step closer to so many spares, quietly: without them a takeover is only slower."""
        if anyio.current_time() - self._tended_s < TEND_S:
            return
        self._tended_s = anyio.current_time()
        dead = [each for each in self._sessions if not each.sound]
        self._sessions = [each for each in self._sessions if each not in dead]
        for session in dead:
            await session.close()
        wanted = min(wanted, MOST_SPARES)
        if len(self._sessions) > wanted:
            await self._sessions.pop().close()
        elif len(self._sessions) < wanted:
            try:
                with anyio.fail_after(CONNECT_S):
                    self._sessions.append(await self._open_one())
            except (psycopg.Error, OSError):
                return

    async def close(self) -> None:
        """Give all of them up."""
        while self._sessions:
            await self._sessions.pop().close()
