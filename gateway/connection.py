"""One HTTP/1.1 connection: hypercorn's H11Protocol, driven by a Trio stream.

Hypercorn's TCPServer does this too. It is not used, because it starts a task for each idle period
(here: a deadline is moved), lets a client that does not read hold a task for ever, resets the
connection when it answers before the body has been read (so that the 413 is lost), and speaks HTTP/2
to whoever asks. The protocol, the request's stream and the ASGI side are hypercorn's.
"""

import math
from typing import Any

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.logging import Logger
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Scope

from common.core.errors import Malformed
from common.telemetry import get_logger
from gateway import metrics
from gateway.asgi import Application
from gateway.calls import raw_response, request_id_of
from gateway.errors import HeadersTooLarge, error_answer
from gateway.inbox import Inbox
from gateway.peek import HEAD_LIMIT_BYTES

RECEIVE_BYTES = 1 << 16
IDLE_S = 75.0  # Between two requests of one connection.
SEND_S = 10.0  # How long a client may leave our bytes unread.
LINGER_S = 2.0  # How long we read, and forget, what a client still sends after the last answer.
LINGER_BYTES = 8 << 20

log = get_logger(__name__)


class QuietLog(Logger):
    """Hypercorn's log without its access log: asgi.py tells what is worth telling."""

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        pass


def http_config() -> Config:
    config = Config()
    config.h11_max_incomplete_size = HEAD_LIMIT_BYTES
    config.include_server_header = False
    config.keep_alive_max_requests = 1_000_000
    config.logger_class = QuietLog
    return config


class Connection:
    """Serves one connection; `run` returns when it has been closed."""

    def __init__(
        self, app: Application, config: Config, context: WorkerContext, header_timeout_s: float
    ) -> None:
        self._app = ASGIWrapper(app)
        self._config = config
        self._context = context
        self._header_timeout_s = header_timeout_s
        self._reading = trio.CancelScope()
        self._sending = trio.Lock()
        self._idle = True
        self._closing = False
        self._unsent = b""

    async def run(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        async with stream:
            async with trio.open_nursery() as nursery:
                protocol = _Protocol(
                    self._app, self._config, self._context, _Requests(nursery),
                    ConnectionState({}), False, _peer(stream), None, self._send,
                )  # fmt: skip
                self._protocol = protocol
                self._set_idle(True)
                with self._reading:
                    await self._read(protocol)
                if self._idle or self._closing or not protocol.request_complete:
                    await protocol.handle(Closed())
                # Else: a client that sent its request and then its FIN still gets its answer.
            self._closing = True
            await self._say_goodbye()

    def stop_when_idle(self) -> None:
        """For a drain: end now when no request is under way; else the protocol ends after it."""
        if self._idle:
            self._reading.cancel()

    def _set_idle(self, idle: bool) -> None:
        self._idle = idle
        if not self._closing:
            self._reading.deadline = trio.current_time() + IDLE_S if idle else math.inf

    async def _read(self, protocol: "_Protocol") -> None:
        lingered_bytes = 0
        while lingered_bytes < LINGER_BYTES:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._closing = True
                return
            if self._closing:
                lingered_bytes += len(data) or LINGER_BYTES
                continue
            if self._idle:  # The beginning of a request: the rest of its headers must come soon.
                soon = trio.current_time() + self._header_timeout_s
                self._reading.deadline = min(self._reading.deadline, soon)
            await protocol.handle(RawData(bytes(data)))
            if not data:
                return

    async def _send(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            self._unsent += event.data
            if self._unsent and not self._protocol.head_only:
                await self._flush()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
        elif not self._closing:
            await self._begin_closing()

    async def _flush(self) -> None:
        """Send what waits; a client that does not read within SEND_S is given up."""
        async with self._sending:
            data, self._unsent = self._unsent, b""
            with trio.move_on_after(SEND_S) as scope:
                try:
                    return await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        if scope.cancelled_caught:
            metrics.shed.labels("does not read").inc()
        self._closing = True
        self._reading.cancel()
        return None

    async def _begin_closing(self) -> None:
        """Send FIN, then leave the reader a little time: closing at once could destroy our last answer."""
        self._closing = True
        self._reading.deadline = trio.current_time() + LINGER_S
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return


class _Protocol(H11Protocol):
    """HTTP/1.1 only, and our errors for what is not HTTP at all."""

    head_only = False  # The head of an answer waits for the body, so that both leave in one packet.

    async def stream_send(self, event: StreamEvent) -> None:
        self.head_only = isinstance(event, Response)
        await super().stream_send(event)

    @property
    def request_complete(self) -> bool:
        return self.connection.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    async def _check_protocol(self, event: h11.Request) -> None:
        """No switch to HTTP/2."""

    async def _send_error_response(self, status_code: int) -> None:
        error = HeadersTooLarge() if status_code == 431 else Malformed("This is not an HTTP/1.1 request.")
        await self.send(RawData(data=raw_response(error_answer(error), request_id_of(None))))


class _Requests(TaskGroup):
    """Hypercorn's task group, for one connection: runs the application for each request."""

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._requests = nursery

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Any) -> Any:  # noqa: ARG002
        inbox = Inbox()
        self._requests.start_soon(_run, app, scope, inbox, send)
        return inbox.put


async def _run(app: AppWrapper, scope: Scope, inbox: Inbox, send: Any) -> None:
    try:
        await app(scope, inbox.get, send, trio.to_thread.run_sync, trio.from_thread.run)
    except Exception:
        log.exception("the application failed")
    finally:
        inbox.close()
    await send(None)


def _peer(stream: trio.SocketStream) -> tuple[str, int] | None:
    try:
        name = stream.socket.getpeername()
    except OSError:
        return None
    return (name[0], name[1])
