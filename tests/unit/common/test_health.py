"""Health: what counts as ready, and a server that nobody can hold up; over real sockets, on both loops."""

import json
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import h11
import pytest

from common import health as module
from common.health import MAX_CONNECTIONS, MAX_REQUEST_BYTES, Health, answer, serve_health

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def served() -> AsyncIterator[tuple[Health, int]]:
    health = Health()
    async with anyio.create_task_group() as group:
        port: int = await group.start(serve_health, health, "127.0.0.1", 0)
        yield health, port
        group.cancel_scope.cancel()


async def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes, read to the end; gives status, headers, body."""
    parser = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method="HEAD" if request.startswith(b"HEAD") else "GET", target="/", headers=[("host", "h")]
    )
    parser.send(head)
    parser.send(h11.EndOfMessage())
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(request)
        try:
            while True:
                parser.receive_data(await stream.receive())
        except anyio.EndOfStream:
            parser.receive_data(b"")
    response = parser.next_event()
    assert isinstance(response, h11.Response)
    body = parser.next_event()
    headers = {key.decode(): value.decode() for key, value in response.headers}
    return response.status_code, headers, bytes(body.data) if isinstance(body, h11.Data) else b""


async def get(port: int, path: str) -> tuple[int, bytes]:
    status, _, body = await ask(port, f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    return status, body


async def test_ready_needs_a_part_and_every_part() -> None:
    health = Health()
    assert not health.ready
    health.set("postgres", True)
    assert health.ready
    health.set("kafka", False, "no answer for 3 s")
    assert not health.ready
    assert health.report() == {
        "ready": False,
        "parts": {
            "postgres": {"ok": True, "detail": ""},
            "kafka": {"ok": False, "detail": "no answer for 3 s"},
        },
    }
    health.set("kafka", True)
    assert health.ready


async def test_alive_is_not_ready(served: tuple[Health, int]) -> None:
    health, port = served
    assert (await get(port, "/healthz"))[0] == 200
    assert (await get(port, "/readyz"))[0] == 503
    health.set("leases", True)
    status, body = await get(port, "/readyz?verbose=1")
    assert status == 200
    assert json.loads(body)["parts"]["leases"]["ok"] is True


async def test_metrics_are_prometheus_text(served: tuple[Health, int]) -> None:
    health, port = served
    health.set("kafka", False)
    status, headers, body = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert b'exchange_part_ok{part="kafka"} 0.0' in body


async def test_head_has_no_body_and_post_is_refused(served: tuple[Health, int]) -> None:
    _, port = served
    status, headers, body = await ask(port, b"HEAD /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    status, _, _ = await ask(port, b"POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert status == 405


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * MAX_REQUEST_BYTES,
    ],
)
async def test_a_bad_request_is_refused(served: tuple[Health, int], request_bytes: bytes) -> None:
    _, port = served
    status, _, body = await ask(port, request_bytes)
    assert status in (400, 431)
    assert json.loads(body)["error"]["code"] == "MALFORMED"


async def test_an_unknown_page_is_not_found(served: tuple[Health, int]) -> None:
    assert (await get(served[1], "/admin"))[0] == 404
    assert answer(Health(), "/").status == 404


async def test_connections_that_send_nothing_are_closed_and_bounded(
    served: tuple[Health, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = served
    monkeypatch.setattr(module, "REQUEST_S", 0.3)
    silent = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(MAX_CONNECTIONS + 5)]
    with anyio.fail_after(5):
        for stream in silent:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
            await stream.aclose()
    assert (await get(port, "/healthz"))[0] == 200


async def test_a_caller_who_leaves_early_harms_nobody(served: tuple[Health, int]) -> None:
    _, port = served
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"GET /healthz HT")
    assert (await get(port, "/healthz"))[0] == 200


async def test_a_taken_port_is_an_error(served: tuple[Health, int]) -> None:
    with pytest.raises(OSError, match=r"in use|Errno"):
        await serve_health(Health(), "127.0.0.1", served[1])


async def test_a_page_that_fails_ends_nothing(
    served: tuple[Health, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, port = served
    with monkeypatch.context() as patch:
        patch.setattr(module, "generate_latest", lambda: 1 // 0)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n")
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
    assert (await get(port, "/healthz"))[0] == 200


async def test_a_part_that_is_not_needed_is_told_and_does_not_count() -> None:
    health = Health()
    health.set("postgres", True)
    health.set("partition 3", False, "stopped", needed=False)
    assert health.ready
    assert health.report()["parts"] == {
        "postgres": {"ok": True, "detail": ""},
        "partition 3": {"ok": False, "detail": "stopped"},
    }
