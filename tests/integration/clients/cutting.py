"""A TCP proxy before the gateway that loses what matters: the request, or its answer."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

import anyio
from anyio.abc import SocketAttribute, SocketStream

GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


class Cut(Enum):
    """What happens to the next request that is looked for."""

    BEFORE = "it never reaches the exchange"
    AFTER = "it is carried out, and the connection ends in place of the answer"


class Proxy:
    """`cuts` are used up, one for each request whose bytes have `marker`; all else passes."""

    def __init__(self, server_port: int, marker: bytes) -> None:
        self._server_port = server_port
        self._marker = marker
        self._open: set[anyio.CancelScope] = set()
        self.cuts: deque[Cut] = deque()
        self.shut = False  # True: nobody is let in.
        self.seen = 0  # Requests with the marker.
        self.url = ""

    def cut_all(self) -> None:
        """End every connection there is."""
        for scope in self._open:
            scope.cancel()

    async def serve(self, client: SocketStream) -> None:
        if self.shut:
            await anyio.aclose_forcefully(client)
            return
        with anyio.CancelScope() as scope, suppress(*GONE):
            self._open.add(scope)
            async with client, await anyio.connect_tcp("127.0.0.1", self._server_port) as server:
                swallow = anyio.Event()
                async with anyio.create_task_group() as group:
                    group.start_soon(self._answers, server, client, swallow, group.cancel_scope)
                    await self._requests(client, server, swallow)
                    group.cancel_scope.cancel()
        self._open.discard(scope)

    async def _requests(self, client: SocketStream, server: SocketStream, swallow: anyio.Event) -> None:
        """Returning ends both connections."""
        with suppress(*GONE):
            async for data in client:
                cut = None
                if self._marker in data:
                    self.seen += 1
                    cut = self.cuts.popleft() if self.cuts else None
                if cut is Cut.BEFORE:
                    return
                if cut is Cut.AFTER:
                    swallow.set()
                await server.send(data)
                if cut is Cut.AFTER:
                    await anyio.sleep_forever()  # Until the exchange has answered.

    async def _answers(
        self, server: SocketStream, client: SocketStream, swallow: anyio.Event, both: anyio.CancelScope
    ) -> None:
        with suppress(*GONE):
            async for data in server:
                if swallow.is_set():
                    break
                await client.send(data)
        both.cancel()


@asynccontextmanager
async def cutting(server_port: int, marker: bytes = b"POST /api/v1/orders") -> AsyncIterator[Proxy]:
    proxy = Proxy(server_port, marker)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        proxy.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, proxy.serve)
            yield proxy
            group.cancel_scope.cancel()
