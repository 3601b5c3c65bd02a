"""A TCP proxy before PostgreSQL that cuts a session at the moment that matters: around its COMMIT."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import anyio
import anyio.abc
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# What the server says when a transaction has become durable.
_COMMITTED = b"COMMIT\x00"


class Cut(Enum):
    """What happens to the next COMMIT."""

    BEFORE = "it never reaches the server"
    AFTER = "it is done, and the answer is lost"
    LATE = "the client hears of the end first, and the server gets it when `release` is set"


class Proxy:
    """`cuts` are used up, one for each COMMIT; after them everything passes."""

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        self._server = str(given["host"]), int(given["port"] or 0)
        self._url = url
        self.cuts: deque[Cut] = deque()
        self.release = anyio.Event()
        self.url = ""

    def listens_on(self, port: int) -> None:
        self.url = make_conninfo(self._url, host="127.0.0.1", port=port)

    async def serve(self, client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp(*self._server) as server:
            swallowed = anyio.Event()  # Set: what the server says is no longer passed on.
            async with anyio.create_task_group() as group:
                group.start_soon(self._answers, server, client, swallowed, group.cancel_scope)
                await self._questions(client, server, swallowed)
                group.cancel_scope.cancel()

    async def _questions(
        self, client: anyio.abc.SocketStream, server: anyio.abc.SocketStream, swallowed: anyio.Event
    ) -> None:
        """Pass on what the client says; returning ends both connections."""
        try:
            async for data in client:
                cut = self.cuts.popleft() if b"COMMIT" in data and self.cuts else None
                if cut is Cut.BEFORE:
                    return
                if cut is not None:
                    swallowed.set()
                if cut is Cut.LATE:
                    await client.aclose()
                    await self.release.wait()
                await server.send(data)
                if cut is not None:
                    await anyio.sleep_forever()  # Until the server has answered.
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def _answers(
        self,
        server: anyio.abc.SocketStream,
        client: anyio.abc.SocketStream,
        swallowed: anyio.Event,
        both: anyio.CancelScope,
    ) -> None:
        try:
            async for data in server:
                if not swallowed.is_set():
                    await client.send(data)
                elif _COMMITTED in data:
                    break
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        both.cancel()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(url)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        proxy.listens_on(listener.extra(anyio.abc.SocketAttribute.local_port))
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, proxy.serve)
            yield proxy
            group.cancel_scope.cancel()
