"""The WebSocket server: accepts, shakes hands, and hands each connection to `connection.Client`.

Behind the gateway's splice, so the bytes are the browser's own, after a line that tells its address; with
certificates the splice comes over mutual TLS, and from a gateway only. No compression: frames are shared
between clients, and a compressor for each would cost more than the bytes.
"""

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext

import anyio
import wsproto
import wsproto.events
from anyio.abc import ByteStream, Listener, SocketAttribute, SocketListener, SocketStream, TaskGroup
from anyio.streams.tls import TLSAttribute, TLSStream
from wsproto.utilities import RemoteProtocolError

from common.proxy_line import MOST_BYTES, BadProxyLine, take_proxy_line
from common.telemetry import get_logger
from common.tls import Role
from daemons.market_data import metrics
from daemons.market_data.connection import Client, Desk
from daemons.market_data.outbox import Outbox

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

    def __init__(self, desk: Desk, max_connections: int, context: ssl.SSLContext | None = None) -> None:
        """`context`: of mutual TLS with the gateways; None: plain, on loopback."""
        self._desk = desk
        self._context = context
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
        except ssl.SSLError as error:
            metrics.handshakes_refused.labels("tls").inc()
            log.warning("no TLS", error=str(error))
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
            spoken = await self._secured(stream)
            shaken = await _shake_hands(spoken) if spoken is not None else None
        if waiting.cancelled_caught:
            metrics.handshakes_refused.labels("timeout").inc()
            return
        if spoken is None or shaken is None:
            return
        connection, rest, told = shaken
        client = Client(spoken, connection, rest, self._desk, told or _peer(raw))
        self._clients.add(client)
        metrics.clients.inc()
        try:
            with _writing_past(stream, client.outbox) if spoken is stream else nullcontext():
                await client.run()
        finally:
            self._clients.discard(client)
            metrics.clients.dec()

    async def _secured(self, stream: SocketStream) -> ByteStream | None:
        """What is spoken on the connection: itself, or TLS with a gateway; None when it is no gateway."""
        if self._context is None:
            return stream
        # An end without a farewell is an end: WebSocket frames say where they end.
        secure = await TLSStream.wrap(
            stream, server_side=True, ssl_context=self._context, standard_compatible=False
        )
        shown = secure.extra(TLSAttribute.peer_certificate) or {}  # noqa: S610 - anyio's, not Django's
        if ("DNS", Role.GATEWAY.value) in shown.get("subjectAltName", ()):
            return secure
        metrics.handshakes_refused.labels("role").inc()
        log.warning("not a gateway", certificate=str(shown.get("subject")))
        return None

    async def drain(self) -> None:
        """Tell every client to go and wait until they have; the caller's deadline ends the wait."""
        for client in self.clients():
            client.outbox.close(GOING_AWAY, "going away")
        while self._open:
            self._empty = anyio.Event()
            await self._empty.wait()


@contextmanager
def _writing_past(stream: SocketStream, outbox: Outbox) -> Iterator[None]:
    """Let the outbox write to the socket itself while its writer sleeps.

    Nothing of the stream's own can be on its way then: anyio's `send` returns when the kernel has it all.
    The descriptor is a copy: the transport closes its own when it likes, and its number is then another's.
    """
    try:
        descriptor = os.dup(stream.extra(SocketAttribute.raw_socket).fileno())  # noqa: S610 - anyio's
    except OSError:  # No file left: it goes the other way.
        yield
        return

    def write_now(chunk: bytes) -> int:
        try:
            return os.write(descriptor, chunk)
        except OSError:  # Full; or broken, which the stream finds out by itself.
            return 0

    outbox.write_now = write_now
    try:
        yield
    finally:
        outbox.write_now = None
        os.close(descriptor)


def _peer(raw: socket.socket) -> str:
    try:
        return str(raw.getpeername()[0])
    except (OSError, IndexError):
        return ""


async def _shake_hands(stream: ByteStream) -> tuple[wsproto.WSConnection, bytes, str] | None:
    """Read the upgrade and accept it. None: refused or left.

    Gives, too, what came behind it, and the client's address when a gateway has told it.
    """
    head, rest = await _read_head(stream)
    if not head:
        return None
    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    try:
        address, head = take_proxy_line(head)
        connection.receive_data(head)
        request = next(iter(connection.events()), None)
    except (RemoteProtocolError, UnicodeError, BadProxyLine) as error:
        metrics.handshakes_refused.labels("malformed").inc()
        hint = getattr(error, "event_hint", None) or wsproto.events.RejectConnection()
        await stream.send(_refusal(hint.status_code, hint.headers))
        return None
    if not isinstance(request, wsproto.events.Request) or request.target.partition("?")[0] != PATH:
        metrics.handshakes_refused.labels("path").inc()
        await stream.send(_refusal(404, []))
        return None
    await stream.send(connection.send(wsproto.events.AcceptConnection()))
    return connection, rest, address


def _refusal(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"HTTP/1.1 %d Refused" % status, *(name + b": " + value for name, value in headers)]
    lines += [b"Connection: close", b"Content-Length: 0", b"", b""]
    return b"\r\n".join(lines)


async def _read_head(stream: ByteStream) -> tuple[bytes, bytes]:
    """The request up to its empty line, and what follows; (b"", b"") when there is none."""
    read = bytearray()
    while (end := read.find(b"\r\n\r\n")) < 0:
        if len(read) > MAX_HEAD_BYTES + MOST_BYTES:
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
async def serve_websockets(
    desk: Desk, host: str, port: int, max_connections: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve while the body runs; gives the bound port. On leaving: no new ones, 1001 for the others.

    With a `context` over TLS, and to gateways only.
    """
    sockets = WebSockets(desk, max_connections, context)
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
