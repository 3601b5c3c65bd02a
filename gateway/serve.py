"""The public port: accepts connections and sends each where its first request belongs.

    GET /ws with Upgrade: websocket    bytes spliced to market-data
    the same on another path           404, here
    everything else                    HTTP: connection.py

Only the first request of a connection is looked at. An upgrade that comes later, on a connection which
has served HTTP, is answered 426 by the application: browsers and libraries open a new one anyway.

A drain stops accepting, and leaves to other gateways on the same socket what waits there. Who sends a request
within GRACE_S is answered with `connection: close`; then what is idle is closed.

A silent connection costs a socket and a sleeping task, and has `header_timeout_s`. When there is no room for
a newcomer, the one that has been silent longest makes it; when none is silent, the newcomer hears 503. Who
holds as many as one address may hold hears 429.
"""

import errno
import resource
import socket
import ssl
from collections import Counter, OrderedDict
from collections.abc import Callable

import trio

from common.config import BadSetting, Settings, is_loopback
from common.core.errors import ExchangeError, Malformed, NotFound, Unavailable
from common.proxy_line import proxy_line
from common.telemetry import get_logger
from gateway import metrics
from gateway.asgi import WS_PATH, Application
from gateway.browsers import protection
from gateway.calls import raw_response, request_id_of
from gateway.connection import Connection, http_config
from gateway.door import Door
from gateway.errors import HeadersTooLarge, RequestTimeout, TooManyConnections, error_answer
from gateway.limits import subject_of
from gateway.pace import deadline_s
from gateway.peek import HEAD_LIMIT_BYTES, EndlessHead, HalfRequest, Head, peek_head
from gateway.proxies import Proxies
from gateway.splice import dial, splice

BACKLOG = 4096
RESERVED_FILES = 128  # For gRPC, logs and the interpreter.
FAREWELL_S = 1.0
GRACE_S = 1.0  # Of a drain: closing at once would cross with requests on their way.
_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

log = get_logger(__name__)


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def open_listener(settings: Settings) -> trio.socket.SocketType:
    """The supervisor's socket, or our own; raises BadSetting when that cannot or must not be."""
    if settings.listen_fd < 0:
        return _listen(settings.host, settings.port, "EXCHANGE_PORT")
    try:
        sock = socket.socket(fileno=settings.listen_fd)
        sock.listen(BACKLOG)
    except OSError as error:
        raise BadSetting(f"EXCHANGE_LISTEN_FD: cannot listen: {error.strerror}") from None
    host = sock.getsockname()[0]
    if settings.local_mode and not is_loopback(host):
        raise BadSetting(f"EXCHANGE_LISTEN_FD is a socket on {host}, and EXCHANGE_LOCAL_MODE is for loopback")
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


def open_own_listener(settings: Settings) -> trio.socket.SocketType:
    """This instance's own port, for its health and metrics: the public one may be several gateways'.

    Raises BadSetting when that cannot be.
    """
    return _listen(settings.host, settings.health_port, "EXCHANGE_HEALTH_PORT")


def _listen(host: str, port: int, setting: str) -> trio.socket.SocketType:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BadSetting(f"{setting}: cannot listen: {error.strerror}") from None
    sock.setblocking(False)
    return trio.socket.from_stdlib_socket(sock)


class Front:
    """Serves the connections of one listening socket inside the nursery that `accept` is given."""

    def __init__(
        self,
        app: Application,
        door: Door,
        proxies: Proxies,
        settings: Settings,
        file_limit: int,
        upstream: ssl.SSLContext | None = None,
    ) -> None:
        """`upstream`: how market-data is spoken to where that is over TLS."""
        self._app = app
        self._door = door
        self._ws_address = settings.market_data_ws_address
        self._upstream = upstream
        self._header_timeout_s = settings.header_timeout_s
        self._most_files = max(1, min(settings.max_connections, file_limit - RESERVED_FILES))
        self._proxies = proxies
        self._most_of_one = settings.max_connections_per_ip
        self._by_subject: Counter[bytes] = Counter()  # Connections of an address; see limits.subject_of.
        self._config = http_config()
        self._protect = protection(behind_tls=settings.behind_tls)
        self._draining = trio.Event()
        self._empty = trio.Event()  # Set when a drain has nobody left.
        self._files = 0  # Sockets of ours that are open: one a connection, two a splice.
        self._silent: OrderedDict[int, trio.CancelScope] = OrderedDict()  # Longest silent first.
        self._http: set[Connection] = set()
        self._splicing: set[trio.CancelScope] = set()

    async def accept(self, listener: trio.socket.SocketType, connections: trio.Nursery) -> None:
        """Accept for ever; closes the listener (our copy of it) when cancelled."""
        with listener:
            while True:
                try:
                    sock, address = await listener.accept()
                except OSError as error:
                    if error.errno in _FULL:
                        self._shed_silent()
                        await trio.sleep(0.05)  # What has been shed needs a moment to be closed.
                    elif error.errno == errno.EBADF or error.errno == errno.EINVAL:
                        raise
                    continue  # The client left before it was accepted.
                connections.start_soon(self._serve, sock, address[0])

    async def stop(self) -> None:
        """After accepting has ended: end what is spliced, and soon what is silent or idle.

        Requests under way go on.
        """
        self._draining.set()
        for scope in list(self._splicing):
            scope.cancel()
        with trio.move_on_after(GRACE_S):
            if self._files:
                await self._empty.wait()
        for scope in list(self._silent.values()):
            scope.cancel()
        for connection in list(self._http):
            await connection.stop_when_idle()

    def _shed_silent(self) -> bool:
        if not self._silent:
            return False
        _, scope = self._silent.popitem(last=False)
        scope.cancel()
        metrics.shed.labels("silent").inc()
        return True

    async def _serve(self, sock: trio.socket.SocketType, address: str) -> None:
        """One connection from its first byte to its end; nothing it does may hurt others."""
        subject = b"" if self._proxies.trusts(address) else subject_of(address)
        self._files += 1
        self._by_subject[subject] += 1
        metrics.connections.inc()
        try:
            stream = trio.SocketStream(sock)
            async with stream:
                if self._files > self._most_files and not self._shed_silent():
                    metrics.shed.labels("full").inc()
                    await _refuse(stream, Unavailable("Too many connections."), None)
                elif subject and self._by_subject[subject] > self._most_of_one:
                    metrics.shed.labels("too many of one address").inc()
                    await _refuse(stream, TooManyConnections(), None)
                else:
                    await self._route(stream)
        except OSError:
            pass  # The client broke the connection.
        except Exception:
            log.exception("connection failed")
        finally:
            self._files -= 1
            self._by_subject[subject] -= 1
            if not self._by_subject[subject]:
                del self._by_subject[subject]
            metrics.connections.dec()
            if not self._files and self._draining.is_set():
                self._empty.set()

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
                return await peek_head(stream.socket, in_time(scope, self._header_timeout_s))
            finally:
                metrics.silent_connections.dec()
                shed = self._silent.pop(key, None) is None
        if not shed and not self._draining.is_set():
            metrics.shed.labels("headers late").inc()
            await _refuse(stream, RequestTimeout("The headers did not arrive in time."), None)
        return None

    async def _serve_http(self, stream: trio.SocketStream) -> None:
        connection = Connection(
            self._app,
            self._door,
            self._config,
            self._draining.is_set,
            self._header_timeout_s,
            self._protect,
        )
        self._http.add(connection)
        try:
            await connection.run(stream)
        finally:
            self._http.discard(connection)

    async def _serve_websocket(self, stream: trio.SocketStream, head: Head) -> None:
        try:
            upstream = await dial(self._ws_address, self._upstream)
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
                    await splice(stream, upstream, _told_address(stream, head, self._proxies))
        finally:
            self._splicing.discard(scope)
            self._files -= 1
            metrics.splices.dec()


def in_time(scope: trio.CancelScope, most_s: float) -> Callable[[int], None]:
    """Told how many bytes of the headers there are, moves the deadline of `scope`. Silence before is free."""
    begun_s, until_s = 0.0, scope.deadline

    def progress(seen_bytes: int) -> None:
        nonlocal begun_s
        begun_s = begun_s or trio.current_time()
        scope.deadline = min(until_s, deadline_s(begun_s, seen_bytes, most_s))

    return progress


def _told_address(stream: trio.SocketStream, head: Head, proxies: Proxies) -> bytes:
    """What market-data is told of a client before the client's own bytes; raises OSError when that left."""
    peer, ours = stream.socket.getpeername(), stream.socket.getsockname()
    return proxy_line((proxies.client_of(peer[0], head.forwarded), peer[1]), (ours[0], ours[1]))


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
