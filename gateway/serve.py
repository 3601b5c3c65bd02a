"""The public port: accepts connections and sends each where its first request belongs.

    GET /ws with Upgrade: websocket    bytes spliced to market-data
    the same on another path           404, here
    everything else                    HTTP: connection.py

Only the first request of a connection is looked at. An upgrade that comes later, on a connection which
has served HTTP, is answered 426 by the application: browsers and libraries open a new one anyway.

A silent connection costs a socket and a sleeping task, and has `header_timeout_s`. When there is no room for
a newcomer, the one that has been silent longest makes it; when none is silent, the newcomer hears 503.
"""

import errno
import resource
import socket
from collections import OrderedDict

import trio
from hypercorn.trio.worker_context import WorkerContext

from common.config import BadSetting, Settings
from common.core.errors import ExchangeError, Malformed, NotFound, Unavailable
from common.telemetry import get_logger
from gateway import metrics
from gateway.asgi import WS_PATH, Application
from gateway.calls import raw_response, request_id_of
from gateway.connection import Connection, http_config
from gateway.errors import HeadersTooLarge, RequestTimeout, error_answer
from gateway.peek import HEAD_LIMIT_BYTES, EndlessHead, HalfRequest, Head, peek_head
from gateway.splice import dial, splice

BACKLOG = 4096
RESERVED_FILES = 128  # For gRPC, logs and the interpreter.
FAREWELL_S = 1.0
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = get_logger(__name__)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def open_listener(settings: Settings) -> trio.socket.SocketType:
    """The supervisor's socket, or our own; raises BadSetting when that cannot be."""
    try:
        if settings.listen_fd >= 0:
            sock = socket.socket(fileno=settings.listen_fd)
            sock.listen(BACKLOG)
        else:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            sock = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        name = "EXCHANGE_LISTEN_FD" if settings.listen_fd >= 0 else "EXCHANGE_PORT"
        raise BadSetting(f"{name}: cannot listen: {error.strerror}") from None
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


class Front:
    """Serves the connections of one listening socket inside the nursery that `accept` is given."""

    def __init__(self, app: Application, settings: Settings, file_limit: int) -> None:
        self._app = app
        self._ws_address = settings.market_data_ws_address
        self._header_timeout_s = settings.header_timeout_s
        self._most_files = max(1, min(settings.max_connections, file_limit - RESERVED_FILES))
        self._config = http_config()
        self._context = WorkerContext(None)
        self._files = 0  # Sockets of ours that are open: one a connection, two a splice.
        self._silent: OrderedDict[int, trio.CancelScope] = OrderedDict()  # Longest silent first.
        self._http: set[Connection] = set()
        self._splicing: set[trio.CancelScope] = set()

    async def accept(self, listener: trio.socket.SocketType, connections: trio.Nursery) -> None:
        """Accept for ever; closes the listener (our copy of it) when cancelled."""
        with listener:
            while True:
                try:
                    sock, _ = await listener.accept()
                except OSError as error:
                    if error.errno in _FULL:
                        self._shed_silent()
                        await trio.sleep(0.05)  # What has been shed needs a moment to be closed.
                    elif error.errno == errno.EBADF or error.errno == errno.EINVAL:
                        raise
                    continue  # The client left before it was accepted.
                connections.start_soon(self._serve, sock)

    async def stop(self) -> None:
        """After accepting has ended: end what is silent, idle or spliced. Requests under way go on."""
        await self._context.terminated.set()
        for scope in [*self._silent.values(), *self._splicing]:
            scope.cancel()
        for connection in list(self._http):
            connection.stop_when_idle()

    def _shed_silent(self) -> bool:
        if not self._silent:
            return False
        _, scope = self._silent.popitem(last=False)
        scope.cancel()
        metrics.shed.labels("silent").inc()
        return True

    async def _serve(self, sock: trio.socket.SocketType) -> None:
        """One connection from its first byte to its end; nothing it does may hurt others."""
        self._files += 1
        metrics.connections.inc()
        try:
            stream = trio.SocketStream(sock)
            async with stream:
                if self._files > self._most_files and not self._shed_silent():
                    metrics.shed.labels("full").inc()
                    await _refuse(stream, Unavailable("Too many connections."), None)
                else:
                    await self._route(stream)
        except OSError:
            pass  # The client broke the connection.
        except Exception:
            log.exception("connection failed")
        finally:
            self._files -= 1
            metrics.connections.dec()

    async def _route(self, stream: trio.SocketStream) -> None:
        try:
            head = await self._await_head(stream)
        except HalfRequest as half:
            if half.seen:
                await _refuse(stream, Malformed("The request ended within its headers."), None)
            return
        except EndlessHead:
            await _refuse(stream, HeadersTooLarge(), None)
            return
        if head is None:
            return
        path = head.upgrade_path
        if path is None:
            await self._serve_http(stream)
        elif path == WS_PATH:
            await self._serve_websocket(stream, head)
        else:
            await _refuse(stream, NotFound("There is no such path. WebSockets are at /ws."), head)

    async def _await_head(self, stream: trio.SocketStream) -> Head | None:
        """The head of the first request; None when the connection was ended here instead."""
        key = id(stream)
        with trio.move_on_after(self._header_timeout_s) as scope:
            self._silent[key] = scope
            metrics.silent_connections.inc()
            try:
                return await peek_head(stream.socket)
            finally:
                metrics.silent_connections.dec()
                shed = self._silent.pop(key, None) is None
        if not shed and not self._context.terminated.is_set():
            metrics.shed.labels("headers late").inc()
            await _refuse(stream, RequestTimeout("The headers did not arrive in time."), None)
        return None

    async def _serve_http(self, stream: trio.SocketStream) -> None:
        connection = Connection(self._app, self._config, self._context, self._header_timeout_s)
        self._http.add(connection)
        try:
            await connection.run(stream)
        finally:
            self._http.discard(connection)

    async def _serve_websocket(self, stream: trio.SocketStream, head: Head) -> None:
        try:
            upstream = await dial(self._ws_address)
        except OSError as error:
            log.warning("no WebSocket upstream", error=str(error))
            await _refuse(stream, Unavailable("market-data does not answer; try again."), head)
            return
        self._files += 1
        metrics.splices.inc()
        try:
            async with upstream:
                with trio.CancelScope() as scope:
                    self._splicing.add(scope)
                    await splice(stream, upstream)
        finally:
            self._splicing.discard(scope)
            self._files -= 1
            metrics.splices.dec()


async def _refuse(stream: trio.SocketStream, error: ExchangeError, head: Head | None) -> None:
    """Answer and end. What has been sent is read first: closing over unread bytes would reset."""
    request_id = request_id_of(head.request_id if head else None)
    with trio.move_on_after(FAREWELL_S):
        try:
            await stream.send_all(raw_response(error_answer(error), request_id))
            await stream.send_eof()
            left_bytes = 4 * HEAD_LIMIT_BYTES
            while left_bytes > 0 and (data := await stream.receive_some(HEAD_LIMIT_BYTES)):
                left_bytes -= len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
