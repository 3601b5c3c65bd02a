"""A TCP proxy between the daemons and one server, in a thread of its own, so that it is never late.

Its modes harm the connections there are and those that come. Handles may be used from any thread; what a
mode does begins at once. Does not promise: to lose single packets. TCP would send them again, so a network
that drops is one that stands still, and what was on its way arrives when it heals.

    passing     everything passes
    dropping    nothing passes, and nobody is told; it all arrives when the network heals
    delaying    every chunk comes `delay_s` late
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

CHUNK_BYTES = 1 << 16
GREETING_BYTES = 1 << 11
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset.

T = TypeVar("T")
Watch = Callable[[bytes, bytes, int], bool]


class _Pair:
    """One client's connection, the one to the server, and what the client said first."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.port: int = client.get_extra_info("peername")[1]
        self.greeting = b""
        self.greeted = False
        self.halve = False
        self.duplicate = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            raw = writer.get_extra_info("socket")
            with suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def keep_greeting(self, data: bytes) -> None:
        """Whole chunks, as they came: half a message would be none."""
        if not self.greeted and len(self.greeting) + len(data) <= GREETING_BYTES:
            self.greeting += data
        else:
            self.greeted = True


class TcpProxy:
    """Listens on `port` of loopback; `server_port` is where the server is or will be."""

    def __init__(self, port: int, server_port: int) -> None:
        self.port = port
        self.server_port = server_port
        self._pairs: set[_Pair] = set()
        self._opened: asyncio.Event | None = None
        self._delay_s = 0.0
        self._watches: list[tuple[Watch, Callable[[], None]]] = []
        self._portal: BlockingPortal | None = None
        self._extra: set[asyncio.Task[None]] = set()

    # --- What a fault does. Each is called from the thread of the load.

    def cut(self) -> int:
        """Reset every connection there is; gives how many. New ones are let through."""
        return self._do(self._cut)

    def cut_one(self, rng: random.Random) -> bool:
        """Reset one of them; False when there is none."""
        return self._do(lambda: self._cut_one(rng))

    def drop(self, dropping: bool) -> None:
        """Stand still, or heal."""
        self._do(lambda: self._set_open(not dropping))

    def delay(self, delay_s: float) -> None:
        """Be late by so much, in both directions; 0 heals."""
        self._do(lambda: setattr(self, "_delay_s", delay_s))

    def halve(self) -> int:
        """Of the next chunk of each connection that is there half passes; then it is reset."""
        return self._do(lambda: self._mark("halve"))

    def duplicate(self) -> int:
        """What each client says next is said again on a second connection, after its greeting."""
        return self._do(lambda: self._mark("duplicate"))

    def heal(self) -> None:
        """Pass everything again."""
        self._do(self._heal)

    @contextmanager
    def watching(self, watch: Watch, act: Callable[[], None]) -> Iterator[threading.Event]:
        """Call `act` once, before the first chunk of a client passes for which `watch` holds.

        `watch` is given what that client said first, the chunk, and the client's port. Gives an event
        that is set then. Both run in the thread of the proxy.
        """
        seen = threading.Event()

        def acted() -> None:
            act()
            seen.set()

        one = (watch, acted)
        self._do(lambda: self._watches.append(one))
        try:
            yield seen
        finally:
            self._do(lambda: self._watches.remove(one) if one in self._watches else None)

    # --- In the proxy's own loop.

    def _do(self, call: Callable[[], T]) -> T:
        assert self._portal is not None, "the proxy does not run"
        return self._portal.call(call)

    def _cut(self) -> int:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.reset()
        return len(pairs)

    def _cut_one(self, rng: random.Random) -> bool:
        pairs = list(self._pairs)
        if pairs:
            rng.choice(pairs).reset()
        return bool(pairs)

    def _set_open(self, is_open: bool) -> None:
        assert self._opened is not None
        if is_open:
            self._opened.set()
        else:
            self._opened.clear()

    def _mark(self, name: str) -> int:
        for pair in self._pairs:
            setattr(pair, name, True)
        return len(self._pairs)

    def _heal(self) -> None:
        self._set_open(True)
        self._delay_s = 0.0
        for pair in self._pairs:
            pair.halve = pair.duplicate = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self._opened = asyncio.Event()
        self._opened.set()
        listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        try:
            yield
        finally:
            listener.close()
            self._cut()
            for task in list(self._extra):
                task.cancel()
            await asyncio.gather(*self._extra, return_exceptions=True)

    def runs_in(self, portal: BlockingPortal) -> None:
        self._portal = portal

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._carry(reader, writer))

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._extra.add(task)
        task.add_done_callback(self._extra.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._opened is not None
        try:
            await self._opened.wait()
            from_server, to_server = await asyncio.open_connection(
                "127.0.0.1", self.server_port, limit=CHUNK_BYTES
            )
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, to_server)
        self._pairs.add(pair)
        ways = [
            asyncio.ensure_future(self._pump(pair, reader, to_server, said=True)),
            asyncio.ensure_future(self._pump(pair, from_server, writer, said=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pairs.discard(pair)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, to_server):
                end.close()

    async def _pump(
        self, pair: _Pair, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, said: bool
    ) -> None:
        """One direction; returning ends both."""
        assert self._opened is not None
        with suppress(OSError):
            while data := await source.read(CHUNK_BYTES):
                await self._opened.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                    await self._opened.wait()
                if said:
                    self._look(pair, data)
                if pair.halve:
                    sink.write(data[: len(data) // 2])
                    with suppress(OSError):
                        await sink.drain()
                    pair.reset()
                    return
                sink.write(data)
                await sink.drain()

    def _look(self, pair: _Pair, data: bytes) -> None:
        for one in list(self._watches):
            watch, act = one
            if watch(pair.greeting, data, pair.port):
                self._watches.remove(one)
                act()
        if pair.duplicate:
            pair.duplicate = False
            said = pair.greeting if not pair.greeted else pair.greeting + data
            self._spawn(self._say_again(said))
        pair.keep_greeting(data)

    async def _say_again(self, said: bytes) -> None:
        """On a connection of its own, whose answers nobody hears."""
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.server_port)
            try:
                writer.write(said)
                async with asyncio.timeout(1.0):
                    while await reader.read(CHUNK_BYTES):
                        pass
            finally:
                writer.transport.abort()


@contextmanager
def proxies_in_a_thread(*proxies: TcpProxy) -> Iterator[None]:
    """All of them while the body runs."""
    with start_blocking_portal() as portal:
        for proxy in proxies:
            proxy.runs_in(portal)
        with _all_serving(portal, list(proxies)):
            yield


@contextmanager
def _all_serving(portal: BlockingPortal, proxies: list[TcpProxy]) -> Iterator[None]:
    if not proxies:
        yield
        return
    with portal.wrap_async_context_manager(proxies[0].serving()), _all_serving(portal, proxies[1:]):
        yield
