"""Health of a process, and the small HTTP server that tells it: /metrics, /healthz, /readyz.

Alive means that the loop answers. Ready means that every part which has reported says it works. It is
no general HTTP server: one request a connection, no bodies, loopback or a scraper on the other side.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import h11
from anyio.abc import SocketAttribute, SocketStream, TaskStatus
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from common.telemetry import get_logger

log = get_logger(__name__)

REQUEST_S = 5.0
MAX_REQUEST_BYTES = 16 * 1024
MAX_CONNECTIONS = 64

_part_ok = Gauge("exchange_part_ok", "1 while the part of this process works, else 0", ["part"])


@dataclass(frozen=True)
class Part:
    """What a part last said of itself; the process can do its work without one that is not needed."""

    ok: bool
    detail: str
    needed: bool


class Health:
    """The parts of one process; a part that has not reported yet does not count."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}

    def set(self, part: str, ok: bool, detail: str = "", *, needed: bool = True) -> None:
        """Report; `detail` says to people what is missing."""
        self._parts[part] = Part(ok, detail, needed)
        _part_ok.labels(part).set(int(ok))

    @property
    def ready(self) -> bool:
        """True when at least one part has reported and none that is needed is down."""
        return bool(self._parts) and all(part.ok or not part.needed for part in self._parts.values())

    def report(self) -> dict[str, object]:
        """`{"ready": bool, "parts": {name: {"ok": bool, "detail": str}}}`, fit for JSON."""
        parts = {name: {"ok": part.ok, "detail": part.detail} for name, part in self._parts.items()}
        return {"ready": self.ready, "parts": parts}


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int
    content_type: str
    body: bytes


def answer(health: Health, path: str) -> Answer:
    """What GET `path` (without its query) answers; shared with the gateway, which serves it itself."""
    match path:
        case "/metrics":
            return Answer(200, CONTENT_TYPE_LATEST, generate_latest())
        case "/healthz":
            return _json(200, {"alive": True})
        case "/readyz":
            return _json(200 if health.ready else 503, health.report())
        case _:
            return _json(404, {"error": {"code": "NOT_FOUND", "message": "There is no such page."}})


async def serve_health(
    health: Health, host: str, port: int, *, task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; starts with the bound port. Raises OSError when the port is taken."""
    places = anyio.Semaphore(MAX_CONNECTIONS)

    async def handle(stream: SocketStream) -> None:
        async with stream:
            if places.value == 0:
                return  # Somebody opens connections and sends nothing; the next scrape comes anyway.
            async with places:
                with anyio.move_on_after(REQUEST_S):
                    try:
                        await _serve_one(health, stream)
                    except Exception as error:  # A page that fails must not end the daemon.
                        log.error("a page failed", error=repr(error), exc_info=error)

    async with await anyio.create_tcp_listener(local_host=host, local_port=port) as listener:
        task_status.started(listener.extra(SocketAttribute.local_port))  # noqa: S610 - anyio's, not Django's
        await listener.serve(handle)


async def _serve_one(health: Health, stream: SocketStream) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
    try:
        request = await _read_request(connection, stream)
        if request is None:
            return
        if request.method in (b"GET", b"HEAD"):
            response = answer(health, request.target.split(b"?")[0].decode("ascii", "replace"))
        else:
            response = _json(405, {"error": {"code": "METHOD_NOT_ALLOWED", "message": "Only GET."}})
        await stream.send(_encode(connection, response, bodiless=request.method == b"HEAD"))
    except h11.RemoteProtocolError as error:
        await _refuse(connection, stream, error)
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # The caller went away.


async def _read_request(connection: h11.Connection, stream: SocketStream) -> h11.Request | None:
    """The head of the request, or None when the caller leaves without one."""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        try:
            connection.receive_data(await stream.receive())
        except anyio.EndOfStream:
            return None


async def _refuse(connection: h11.Connection, stream: SocketStream, error: h11.RemoteProtocolError) -> None:
    status = error.error_status_hint
    response = _json(status, {"error": {"code": "MALFORMED", "message": HTTPStatus(status).phrase}})
    try:
        await stream.send(_encode(connection, response))
    except (h11.LocalProtocolError, anyio.BrokenResourceError):
        return


def _encode(connection: h11.Connection, response: Answer, *, bodiless: bool = False) -> bytes:
    head = h11.Response(
        status_code=response.status,
        headers=[
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("connection", "close"),
        ],
    )
    body = [] if bodiless else [h11.Data(response.body)]
    return b"".join(connection.send(event) or b"" for event in (head, *body, h11.EndOfMessage()))


def _json(status: int, content: object) -> Answer:
    return Answer(status, "application/json", json.dumps(content).encode())
