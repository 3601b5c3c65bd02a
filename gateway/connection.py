"""One HTTP/1.1 connection: hypercorn's H11Protocol, driven by a Trio stream.

Hypercorn's TCPServer does this too. It is not used, because it starts a task for each idle period
(here: a deadline is moved), lets a client that does not read hold a task for ever, resets the
connection when it answers before the body has been read (so that the 413 is lost), and speaks HTTP/2
to whoever asks. The protocol, the request's stream and the ASGI side are hypercorn's.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
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
from gateway.browsers import Protect
from gateway.calls import raw_response, request_id_of
from gateway.door import Door
from gateway.errors import HeadersTooLarge, error_answer
from gateway.glance import glance, request_id
from gateway.inbox import Inbox
from gateway.pace import deadline_s
from gateway.peek import HEAD_LIMIT_BYTES
from gateway.wire import Wire

IDLE_S = 75.0  # Between two requests of one connection.
SEND_S = 10.0  # How long a client may leave our bytes unread.
IDLE_LINGER_S = 0.5  # The same after an idle connection's end, with which a request may have crossed.
LINGER_S = 2.0  # How long we read, and forget, what a client still sends after the last answer.
LINGER_BYTES = 8 << 20

# What hypercorn would end a connection with, without a word to the client; our drain announces it.
_ENDLESS = WorkerContext(None)

log = get_logger(__name__)


class QuietLog(Logger):
    """Hypercorn's log without its access log: asgi.py tells what is worth telling."""

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        pass


class _DatedConfig(Config):
    """Hypercorn's settings; the headers of every answer are made once a second, as their date changes."""

    _made_s = 0
    _made: list[tuple[bytes, bytes]]

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now_s = int(time.time())
        if now_s != self._made_s:
            self._made_s, self._made = now_s, super().response_headers(protocol)
        return self._made


def http_config() -> Config:
    config = _DatedConfig()
    config.h11_max_incomplete_size = HEAD_LIMIT_BYTES
    config.include_server_header = False
    config.keep_alive_max_requests = 1_000_000
    config.logger_class = QuietLog
    return config


class Connection:
    """Serves one connection; `run` returns when it has been closed."""

    def __init__(
        self,
        app: Application,
        door: Door,
        config: Config,
        is_draining: Callable[[], bool],
        header_timeout_s: float,
        protect: Protect,
    ) -> None:
        """`protect` completes the head of each answer."""
        self._app = ASGIWrapper(app)
        self._door = door
        self._config = config
        self._is_draining = is_draining
        self._header_timeout_s = header_timeout_s
        self._protect = protect
        self._reading = trio.CancelScope()
        self._idle = True
        self._closing = False
        self._unsent = b""
        self._head_begun_s, self._head_bytes = 0.0, 0  # Of a request that has begun to come.

    async def run(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._wire = Wire(stream, SEND_S)
        async with stream:
            with self._wire:
                await self._serve(stream)
            self._closing = True
            await self._say_goodbye()

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            requests = _Requests(nursery)
            protocol = _Protocol(
                self._app, self._config, _ENDLESS, requests,
                ConnectionState({}), False, _peer(stream), None, self._send,
            )  # fmt: skip
            protocol.is_draining = self._is_draining
            self._protocol = protocol
            self._set_idle(True)
            with self._reading:
                await self._read(protocol)
            if self._idle or self._closing or not protocol.request_complete:
                await protocol.handle(Closed())
            else:  # A client that sent its request and then its FIN still gets its answer.
                requests.leave()

    async def stop_when_idle(self) -> None:
        """For a drain: end now when no request is under way; else the protocol ends after it."""
        if self._idle and not self._closing:
            await self._begin_closing(IDLE_LINGER_S)

    def _set_idle(self, idle: bool) -> None:
        self._idle = idle
        self._head_begun_s, self._head_bytes = 0.0, 0
        if not self._closing:
            self._reading.deadline = trio.current_time() + IDLE_S if idle else math.inf

    async def _read(self, protocol: "_Protocol") -> None:
        lingered_bytes = 0
        while lingered_bytes < LINGER_BYTES:
            try:
                data = await self._wire.receive()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._closing = True
                return
            if self._closing:
                lingered_bytes += len(data) or LINGER_BYTES
                continue
            if self._idle and await self._turn_away(protocol, data):
                continue
            requests = protocol.keep_alive_requests
            await protocol.handle(RawData(data))
            if not data:
                return
            if self._idle and not self._closing and protocol.keep_alive_requests == requests:
                # Not a whole head: the rest of it must come soon.
                self._head_begun_s = self._head_begun_s or trio.current_time()
                self._head_bytes += len(data)
                soon = deadline_s(self._head_begun_s, self._head_bytes, self._header_timeout_s)
                self._reading.deadline = soon

    async def _turn_away(self, protocol: "_Protocol", data: bytes) -> bool:
        """Answer a whole request that the door would refuse anyway; False: it is for the protocol."""
        if not self._door.is_crowded or self._is_draining() or not protocol.is_fresh:
            return False
        head = glance(data)
        if head is None or (refusal := self._door.refusal(places_orders=True)) is None:
            return False
        answer = error_answer(refusal)
        self._unsent += raw_response(answer, request_id_of(request_id(head)), close=False)
        await self._flush()
        self._set_idle(True)
        return True

    async def _send(self, event: Event) -> None:
        """What the protocol wants done."""
        if isinstance(event, RawData):
            if self._protocol.head_only:
                self._unsent += self._protect(event.data)
                return
            self._unsent += event.data
            if self._unsent:
                await self._flush()
        elif isinstance(event, Updated):
            self._set_idle(event.idle)
        elif not self._closing:
            await self._begin_closing()

    async def _flush(self) -> None:
        """Send what waits; a client that does not read within SEND_S is given up."""
        data, self._unsent = self._unsent, b""
        try:
            return await self._wire.send(data)
        except trio.TooSlowError:
            metrics.shed.labels("does not read").inc()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._closing = True
        self._reading.cancel()
        return None

    async def _begin_closing(self, linger_s: float = LINGER_S) -> None:
        """Send FIN, then leave the reader a little time: closing at once could destroy our last answer."""
        self._closing = True
        self._reading.deadline = trio.current_time() + linger_s
        await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        try:
            await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return


class _Protocol(H11Protocol):
    """HTTP/1.1 only, and our errors for what is not HTTP at all."""

    head_only = False  # The head of an answer waits for the body, so that both leave in one packet.
    is_draining: Callable[[], bool]

    async def stream_send(self, event: StreamEvent) -> None:
        self.head_only = isinstance(event, Response)
        if isinstance(event, Response) and self.is_draining():
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    @property
    def is_fresh(self) -> bool:
        """True when nothing of the next request has come."""
        return self.connection.their_state is h11.IDLE and not self.connection.trailing_data[0]

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
        self._inbox: Inbox | None = None

    def leave(self) -> None:
        """The client of the last request has closed its side."""
        if self._inbox is not None:
            self._inbox.leave()

    async def spawn_app(self, app: AppWrapper, config: Config, scope: Scope, send: Any) -> Any:  # noqa: ARG002
        inbox = self._inbox = Inbox()
        self._requests.start_soon(_run, app, scope, inbox, send)
        return inbox.put


async def _run(app: AppWrapper, scope: Scope, inbox: Inbox, send: Any) -> None:
    try:
        await app(scope, inbox, send, trio.to_thread.run_sync, trio.from_thread.run)
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
