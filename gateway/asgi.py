"""The outermost layer: every HTTP request passes here, and every answer leaves here.

It asks the door whether the request may come in, gives it its id, reads the body within its limit and in
time, counts, and logs what failed or was slow. Then a hot route answers directly, or Quart finds the handler.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import structlog
import trio

from common.core.errors import Busy, ExchangeError, Malformed, NotFound, PayloadTooLarge
from common.telemetry import get_logger
from gateway import metrics
from gateway.calls import Answer, Call, find_header, request_id_of, response_headers
from gateway.door import Door
from gateway.errors import RequestTimeout, UpgradeRequired, error_answer
from gateway.inbox import Inbox
from gateway.pace import deadline_s
from gateway.pipeline import Handler
from gateway.proxies import NO_PROXIES, Proxies

BODY_S = 15.0  # How long a body may take to arrive.
SLOW_S = 1.0  # From here on a request is logged.
WS_PATH = "/ws"

log = get_logger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Application(Protocol):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class Gateway:
    """The ASGI application. `hot` maps (method, path) to what places orders, and needs no router."""

    def __init__(
        self,
        routed: Application,
        hot: Mapping[tuple[str, str], Handler],
        door: Door,
        *,
        body_limit_bytes: int,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._routed = routed
        self._hot = dict(hot)
        self._door = door
        self._proxies = proxies
        self._body_limit_bytes = body_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await _refuse_websocket(scope, send)
        assert scope["type"] == "http", "the server speaks HTTP; there is no lifespan"
        headers = scope["headers"]
        call = Call(
            method=scope["method"],
            path=scope["path"],
            target=scope["raw_path"],
            query=scope["query_string"],
            headers=headers,
            request_id=request_id_of(find_header(headers, b"x-request-id")),
            address=self._proxies.client_of(client[0] if (client := scope.get("client")) else "", headers),
            client=receive if isinstance(receive, Inbox) else None,
        )
        handler = self._hot.get((call.method, call.path))
        refusal = self._door.refusal(places_orders=handler is not None)
        if refusal is not None:
            return await self._turn_away(call, refusal, receive, send)
        started = trio.current_time()
        reply = _Reply(call, send)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        with self._door.visit() as call.visit:
            try:
                await self._answer(call, handler, scope, receive, reply)
            finally:
                _account(call, reply.status, trio.current_time() - started)
        return None

    async def _turn_away(self, call: Call, refusal: Busy, receive: Receive, send: Send) -> None:
        """The cheapest answer there is. It is counted, and not logged: there are too many of its kind."""
        answer = error_answer(refusal)
        if not _body_is_here(call, receive):
            answer.headers += ((b"connection", b"close"),)  # What is left of the body will not be read.
        await _Reply(call, send).answer(answer)

    async def _answer(
        self, call: Call, handler: Handler | None, scope: Scope, receive: Receive, reply: "_Reply"
    ) -> None:
        try:
            call.body = await self._read_body(call, receive)
        except ExchangeError as error:
            return await reply.answer(error_answer(error))
        if handler is not None:
            call.route = call.path
            if call.visit is not None:
                call.visit.comes()
            return await reply.answer(await handler(call))
        scope["call"] = call
        return await self._routed(scope, _replay(call.body, receive), reply.forward)

    async def _read_body(self, call: Call, receive: Receive) -> bytes:
        """The whole body; raises PayloadTooLarge as soon as that is certain, without reading on."""
        length = call.header(b"content-length")
        if length is None and call.header(b"transfer-encoding") is None:
            return b""
        if length is not None:
            self._check_size(int(length))  # h11 has seen to it that it is a number.
        body = receive.take_body() if isinstance(receive, Inbox) else None
        if body is not None:  # It came with its head: nothing to wait for, and no time to watch.
            self._check_size(len(body))
            return body
        parts: list[bytes] = []
        size = 0
        begun_s = trio.current_time()
        with trio.CancelScope() as scope:
            while True:
                scope.deadline = deadline_s(begun_s, size, BODY_S)
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Malformed("The connection ended within the body.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self._check_size(size)
                if not message.get("more_body", False):
                    return b"".join(parts)
        raise RequestTimeout("The body did not arrive in time.")

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._body_limit_bytes:
            raise PayloadTooLarge(f"The body may have at most {self._body_limit_bytes} bytes.")


class _Reply:
    """Sends the answer to one call, whoever made it, and remembers its status."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._send = send
        self.status = 0  # Until an answer has begun.

    async def answer(self, answer: Answer) -> None:
        self.status = answer.status
        headers = [*response_headers(answer, self._call.request_id), *self._call.limit_headers]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body, "more_body": False})

    async def forward(self, message: Message) -> None:
        """For Quart's messages: what every answer carries is added to the first."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            request_id = (b"x-request-id", self._call.request_id.encode("ascii"))
            message["headers"] = [*message["headers"], request_id, *self._call.limit_headers]
        await self._send(message)


def _body_is_here(call: Call, receive: Receive) -> bool:
    """True when all of the body has come, or there is none."""
    if call.header(b"content-length") is None and call.header(b"transfer-encoding") is None:
        return True
    return isinstance(receive, Inbox) and receive.take_body() is not None


def _replay(body: bytes, receive: Receive) -> Receive:
    """For Quart: the body that has been read already, then whatever comes (the disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _account(call: Call, status: int, seconds: float) -> None:
    metrics.answered(call.route, call.method, status, seconds)
    if status == 0 or status >= 500 or seconds >= SLOW_S:
        log.info(
            "request",
            method=call.method,
            route=call.route,
            status=status,
            duration_s=round(seconds, 4),
            user_id=call.user_id or None,
        )


async def _refuse_websocket(scope: Scope, send: Send) -> None:
    """An upgrade that comes second on its connection: only the first request can be spliced."""
    if scope["path"] == WS_PATH:
        error: ExchangeError = UpgradeRequired()
    else:
        error = NotFound("There is no such path. WebSockets are at /ws.")
    answer = error_answer(error)
    request_id = request_id_of(find_header(scope["headers"], b"x-request-id"))
    headers = [*response_headers(answer, request_id), (b"connection", b"close")]
    await send({"type": "websocket.http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": answer.body, "more_body": False})
