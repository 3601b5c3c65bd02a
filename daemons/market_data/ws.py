"""The WebSocket server: accepts, shakes hands, and hands each connection to `connection.Client`.

Behind the gateway's splice, so the bytes are the browser's own. No compression: frames are shared
between clients, and a compressor for each would cost more than the bytes.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import wsproto
import wsproto.events
from anyio.abc import Listener, SocketAttribute, SocketListener, SocketStream, TaskGroup
from wsproto.utilities import RemoteProtocolError

from common.telemetry import get_logger
from daemons.market_data import metrics
from daemons.market_data.connection import Client, Desk

PATH = "/ws"
HANDSHAKE_S = 10.0
MAX_HEAD_BYTES = 16 << 10
SEND_BUFFER_BYTES = 256 << 10  # The kernel's share of what a slow client may hold.
GOING_AWAY = 1001
BACKLOG = 1_024
ACCEPT_AGAIN_S = 0.05

log = get_logger(__name__)


class WebSockets:
    """The open connections of this process; `serve` is the only way to get one."""

    def __init__(self, desk: Desk, max_connections: int) -> None:
        self._desk = desk
        self._max = max_connections
        self._clients: set[Client] = set()
        self._open = 0
        self._empty = anyio.Event()

    def clients(self) -> list[Client]:
        return list(self._clients)

    async def handle(self, stream: SocketStream) -> None:
        """One connection, from its first byte to its last; raises nothing of the client's making."""
        if self._open >= self._max:
            metrics.handshakes_refused.labels("full").inc()
            await anyio.aclose_forcefully(stream)
            return
        self._open += 1
        try:
            async with stream:
                await self._serve(stream)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError):
            metrics.closes.labels("broken").inc()
        except Exception as error:  # One client's trouble must not end the others.
            log.error("connection failed", error=repr(error), exc_info=error)
            metrics.closes.labels("error").inc()
        finally:
            self._open -= 1
            if not self._open:
                self._empty.set()

    async def _serve(self, stream: SocketStream) -> None:
        raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - anyio's, not Django's
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        with anyio.move_on_after(HANDSHAKE_S) as waiting:
            shaken = await _shake_hands(stream)
        if waiting.cancelled_caught:
            metrics.handshakes_refused.labels("timeout").inc()
            return
        if shaken is None:
            return
        client = Client(stream, *shaken, self._desk)
        self._clients.add(client)
        metrics.clients.inc()
        try:
            await client.run()
        finally:
            self._clients.discard(client)
            metrics.clients.dec()

    async def drain(self) -> None:
        """Tell every client to go and wait until they have; the caller's deadline ends the wait."""
        for client in self.clients():
            client.outbox.close(GOING_AWAY, "going away")
        while self._open:
            self._empty = anyio.Event()
            await self._empty.wait()


async def _shake_hands(stream: SocketStream) -> tuple[wsproto.WSConnection, bytes] | None:
    """Read the upgrade and accept it; what came behind it is returned too. None: refused or left."""
    head, rest = await _read_head(stream)
    if not head:
        return None
    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    try:
        connection.receive_data(head)
        request = next(iter(connection.events()), None)
    except (RemoteProtocolError, UnicodeError) as error:
        metrics.handshakes_refused.labels("malformed").inc()
        hint = getattr(error, "event_hint", None) or wsproto.events.RejectConnection()
        await stream.send(_refusal(hint.status_code, hint.headers))
        return None
    if not isinstance(request, wsproto.events.Request) or request.target.partition("?")[0] != PATH:
        metrics.handshakes_refused.labels("path").inc()
        await stream.send(_refusal(404, []))
        return None
    await stream.send(connection.send(wsproto.events.AcceptConnection()))
    return connection, rest


def _refusal(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 %d Refused" % status, *(name + b": " + value for name, value in headers)]
    lines += [b"Connection: close", b"Content-Length: 0", b"", b""]
    return b"\r\n".join(lines)


async def _read_head(stream: SocketStream) -> tuple[bytes, bytes]:
    """The request up to its empty line, and what follows; (b"", b"") when there is none."""
    read = bytearray()
    while (end := read.find(b"\r\n\r\n")) < 0:
        if len(read) > MAX_HEAD_BYTES:
            metrics.handshakes_refused.labels("too_large").inc()
            await stream.send(_refusal(431, []))
            return b"", b""
        try:
            read += await stream.receive()
        except anyio.EndOfStream:
            metrics.handshakes_refused.labels("half").inc()
            return b"", b""
    return bytes(read[: end + 4]), bytes(read[end + 4 :])


@asynccontextmanager
async def serve_websockets(desk: Desk, host: str, port: int, max_connections: int) -> AsyncIterator[int]:
    """Serve while the body runs; gives the bound port. On leaving: no new ones, 1001 for the others."""
    sockets = WebSockets(desk, max_connections)
    async with anyio.create_task_group() as connections:
        listener = await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=BACKLOG)
        async with listener, anyio.create_task_group() as accepting:
            for each in listener.listeners:
                accepting.start_soon(_accept, each, sockets, connections)
            yield listener.extra(SocketAttribute.local_port)  # noqa: S610 - anyio's, not Django's
            accepting.cancel_scope.cancel()
        await sockets.drain()


async def _accept(listener: Listener[SocketStream], sockets: WebSockets, connections: TaskGroup) -> None:
    """Unlike the listener's own `serve`, this outlives an accept that fails: a client that was gone
    already, or no file descriptor left for it."""
    assert isinstance(listener, SocketListener)
    while True:
        try:
            stream = await listener.accept()
        except OSError as error:
            metrics.handshakes_refused.labels("accept").inc()
            log.warning("accept", error=repr(error))
            await anyio.sleep(ACCEPT_AGAIN_S)
            continue
        connections.start_soon(sockets.handle, stream)
