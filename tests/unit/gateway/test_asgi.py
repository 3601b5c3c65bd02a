"""The outermost layer, called as a server would, in virtual time."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from gateway.asgi import BODY_S, Gateway
from gateway.calls import Answer, Call
from gateway.door import Door
from gateway.pace import GRACE_S
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

LIMIT_BYTES = 2048


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


class Client:
    """Sends one request to a Gateway with a hot route and keeps what comes back."""

    def __init__(self, parts: Sequence[bytes | float | None] = ()) -> None:
        """`parts` of the body: bytes, a pause in seconds, or None: the connection ends."""
        self._parts = list(parts)
        self.calls: list[Call] = []
        self.sent: list[dict[str, Any]] = []
        self.routed = 0
        self.oldest_s = 0.0  # What the door hears of the queue.
        self.coming: list[int] = []  # How many the door thought to be coming, at each step of this one.

    async def ask(
        self, path: str = "/hot", kind: str = "http", headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        scope = {
            "type": kind, "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": list(headers),
        }  # fmt: skip
        door = Door(lambda _: self.oldest_s, queue_s=0.5, most_requests=10)
        self.door = door
        app = Gateway(self._routed, {("POST", "/hot"): self._hot}, door, body_limit_bytes=LIMIT_BYTES)
        await app(scope, self._receive, self._send)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def code(self) -> str:
        return str(json.loads(self.sent[1]["body"])["error"]["code"])

    def header(self, name: bytes) -> bytes | None:
        return dict(self.sent[0]["headers"]).get(name)

    async def _hot(self, call: Call) -> Answer:
        self.calls.append(call)
        self.coming.append(self.door.coming)
        return Answer(202, b"{}")

    async def _routed(self, scope: Any, receive: Any, send: Any) -> None:
        self.routed += 1
        assert await receive() == {"type": "http.request", "body": b"ab", "more_body": False}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _receive(self) -> dict[str, Any]:
        self.coming.append(self.door.coming)
        while self._parts and isinstance(self._parts[0], float):
            await trio.sleep(self._parts.pop(0))  # type: ignore[arg-type]  # Just seen to be a float.
        part = self._parts.pop(0) if self._parts else b""
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(self._parts)}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def body_of(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % size)]


CHUNKED = [(b"transfer-encoding", b"chunked")]


async def test_a_hot_route_gets_the_whole_body_and_its_id() -> None:
    client = Client([b"a", 0.1, b"b"])
    await client.ask(headers=[*body_of(2), (b"x-request-id", b"mine")])
    assert [(call.body, call.request_id, call.route) for call in client.calls] == [(b"ab", "mine", "/hot")]
    assert (client.status, client.header(b"x-request-id")) == (202, b"mine")


async def test_it_counts_as_coming_when_its_body_is_here_and_not_before() -> None:
    client = Client([b"a", 0.1, b"b"])
    await client.ask(headers=body_of(2))
    assert client.coming == [0, 0, 1]  # Two parts of the body, and the handler.
    assert client.door.coming == 0
    client = Client([b"a", b"b"])
    await client.ask("/other", headers=CHUNKED)
    assert set(client.coming) == {0}


async def test_other_paths_go_on_with_the_body_that_was_read() -> None:
    client = Client([b"a", b"b"])
    await client.ask("/other", headers=CHUNKED)
    assert (client.routed, client.status) == (1, 200)
    assert client.header(b"x-request-id")


async def test_a_body_that_does_not_come_is_not_awaited_for_ever() -> None:
    client = Client([b"a", BODY_S * 100, b"b"])
    started = trio.current_time()
    await client.ask(headers=body_of(2))
    assert trio.current_time() - started == pytest.approx(GRACE_S, abs=0.01)
    assert (client.status, client.code) == (408, "REQUEST_TIMEOUT")
    assert client.header(b"connection") == b"close"


async def test_a_body_that_comes_steadily_has_its_time_and_no_more() -> None:
    for pauses, status in ((10, 202), (15, 408)):
        parts: list[bytes | float | None] = [b"x" * 100, 0.4] * pauses
        client = Client([*parts, b"x"])
        started = trio.current_time()
        await client.ask(headers=CHUNKED)
        assert client.status == status
        assert trio.current_time() - started < 5.0


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    too_much: list[bytes | float | None] = [b"x" * LIMIT_BYTES, b"x", BODY_S * 100, b"x"]
    for headers, parts in ((body_of(LIMIT_BYTES + 1), []), (CHUNKED, too_much)):
        client = Client(parts)
        await client.ask(headers=headers)
        assert (client.status, client.code, client.calls) == (413, "PAYLOAD_TOO_LARGE", [])


async def test_a_body_at_the_limit_is_read() -> None:
    client = Client([b"x" * LIMIT_BYTES])
    await client.ask(headers=CHUNKED)
    assert client.status == 202


async def test_a_client_that_leaves_within_its_body_changes_nothing() -> None:
    client = Client([b"a", None])
    await client.ask(headers=body_of(2))
    assert (client.status, client.calls) == (400, [])


@pytest.mark.parametrize(("path", "status"), [("/ws", 426), ("/else", 404)])
async def test_a_websocket_that_comes_second_is_refused(path: str, status: int) -> None:
    client = Client()
    await client.ask(path, kind="websocket")
    assert client.sent[0]["type"] == "websocket.http.response.start"
    assert client.status == status


async def test_an_order_that_is_turned_away_is_not_read() -> None:
    client = Client([b"a", 5.0, b"b"])
    client.oldest_s = 1.0
    begun_s = trio.current_time()
    await client.ask(headers=body_of(2))
    assert trio.current_time() == begun_s
    assert (client.status, client.code, client.calls) == (503, "BUSY", [])
    assert (client.header(b"retry-after"), client.header(b"connection")) == (b"1", b"close")
    other = Client([b"ab"])
    other.oldest_s = 1.0
    await other.ask("/other", headers=body_of(2))  # No order.
    assert other.routed == 1
