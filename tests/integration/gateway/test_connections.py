"""Connections that do not behave, WebSockets, and daemons that are away."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.integration.gateway.backend import Backend, running_backend
from tests.integration.gateway.conftest import HEADER_TIMEOUT_S, GatewayProcess, running_gateway
from tests.integration.gateway.test_http import ALICE, ORDER

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
GET_TIME = b"GET /api/v1/time HTTP/1.1\r\nHost: a\r\n\r\n"


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """One HTTP answer: its status, headers and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(65536)
        assert chunk, data
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += sock.recv(65536)
    return int(lines[0].split()[1]), headers, body


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


# ---- WebSockets ---------------------------------------------------------------------------------


def test_a_websocket_is_spliced_from_its_first_byte(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(UPGRADE + b"early frame")
        expected = UPGRADE + b"early frame"
        got = b""
        while len(got) < len(expected):
            got += sock.recv(65536)
        assert got == expected
        assert gateway.metric("exchange_gateway_splices") == 1
        sock.sendall(b"later frame")
        assert sock.recv(65536) == b"later frame"
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"goodbye"
    eventually(lambda: gateway.metric("exchange_gateway_splices") == 0)


def test_an_upgrade_elsewhere_is_404(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(UPGRADE.replace(b"/ws", b"/chat"))
        status, headers, body = read_answer(sock)
    assert (status, json.loads(body)["error"]["code"]) == (404, "NOT_FOUND")
    assert headers["x-request-id"]


def test_an_upgrade_on_a_used_connection_is_426(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(GET_TIME)
        assert read_answer(sock)[0] == 200
        sock.sendall(UPGRADE)
        status, headers, body = read_answer(sock)
        assert (status, json.loads(body)["error"]["code"]) == (426, "UPGRADE_REQUIRED")
        assert headers["x-request-id"]
        assert sock.recv(1) == b""


@pytest.mark.parametrize("sent", [UPGRADE[:40], UPGRADE[:-2], b"GET", b"POST /api/v1/orders HTTP/1.1\r\n"])
def test_half_a_request_gets_its_answer_when_its_time_is_up(gateway: GatewayProcess, sent: bytes) -> None:
    with gateway.connect() as sock:
        sock.sendall(sent)
        status, headers, body = read_answer(sock)
    assert (status, json.loads(body)["error"]["code"]) == (408, "REQUEST_TIMEOUT")
    assert headers["x-request-id"]


def test_half_an_upgrade_and_then_the_end(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(UPGRADE[:-2])
        sock.shutdown(socket.SHUT_WR)
        status, _, body = read_answer(sock)
    assert (status, json.loads(body)["error"]["code"]) == (400, "MALFORMED")


def test_waiting_for_half_a_request_costs_no_cpu(gateway: GatewayProcess) -> None:
    process = psutil.Process(gateway.process.pid)
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(gateway.connect()).sendall(UPGRADE[:-2])
        before = process.cpu_times()
        time.sleep(HEADER_TIMEOUT_S / 2)
        after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < HEADER_TIMEOUT_S / 4


# ---- odd HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # No Host.
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    ],
    ids=["nonsense", "no host", "long header", "tls", "length"],
)
def test_what_is_no_http_request(gateway: GatewayProcess, sent: bytes, status: int) -> None:
    with gateway.connect() as sock:
        sock.sendall(sent)
        answer = read_answer(sock)
        assert answer[0] == status
        assert json.loads(answer[2])["error"]["code"]
        assert answer[1]["x-request-id"]
        assert sock.recv(1) == b""


def test_requests_in_a_row_and_at_once_on_one_connection(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(GET_TIME * 3)
        data = b""
        while data.count(b'{"time":') < 3:
            data += sock.recv(65536)
        for _ in range(3):
            sock.sendall(GET_TIME)
            assert read_answer(sock)[0] == 200


def test_half_of_a_later_request_has_its_time_too(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(GET_TIME)
        assert read_answer(sock)[0] == 200
        sock.sendall(GET_TIME[:20])
        begun_s = time.monotonic()
        assert sock.recv(1) == b""
        assert HEADER_TIMEOUT_S * 0.9 <= time.monotonic() - begun_s < 10 * HEADER_TIMEOUT_S


def test_the_time_of_a_head_ends_with_the_head(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        for _ in range(2):
            sock.sendall(GET_TIME[:20])
            time.sleep(HEADER_TIMEOUT_S / 4)
            sock.sendall(GET_TIME[20:])
            assert read_answer(sock)[0] == 200
        time.sleep(HEADER_TIMEOUT_S * 1.5)
        sock.sendall(GET_TIME)
        assert read_answer(sock)[0] == 200


def test_a_client_that_ends_its_side_after_the_request_still_gets_the_answer(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"GET /api/v1/accounts HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_answer(sock)[0] == 200
        assert sock.recv(1) == b""


def test_a_slow_sender_is_served_and_hurts_nobody(gateway: GatewayProcess) -> None:
    body = json.dumps(ORDER).encode()
    head = (
        b"POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with gateway.connect() as sock:
        for start in range(0, len(head), 8):
            sock.sendall(head[start : start + 8])
            time.sleep(0.005)
        for start in range(0, len(body), 4):
            sock.sendall(body[start : start + 4])
            assert start % 40 or gateway.http.get("/api/v1/time").status_code == 200
        assert read_answer(sock)[0] == 202


def test_a_client_that_does_not_read_hurts_nobody(gateway: GatewayProcess) -> None:
    with gateway.connect(receive_buffer_bytes=4096) as sock:
        sock.setblocking(False)
        request = b"GET /static/vendor/lightweight-charts.js HTTP/1.1\r\nHost: a\r\n\r\n"
        try:
            for _ in range(200):  # 32 MB of answers that nobody reads.
                sock.send(request)
        except BlockingIOError:
            pass
        for _ in range(20):
            assert gateway.http.get("/api/v1/time").elapsed.total_seconds() < 5


def test_a_client_that_leaves_within_its_body(gateway: GatewayProcess) -> None:
    before = gateway.backend.seen.orders
    with gateway.connect() as sock:
        sock.sendall(
            b"POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n"
            b'Content-Length: 500\r\n\r\n{"symbol":'
        )
    eventually(lambda: gateway.metric("exchange_gateway_requests_in_flight") == 1)  # This question itself.
    assert gateway.backend.seen.orders == before


def test_ten_thousand_connections_that_send_nothing(gateway: GatewayProcess) -> None:
    """As many as both processes may open; each takes one file on either side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(10_000, hard - 2_000)
    try:
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(gateway.connect())
            answered = gateway.http.post("/api/v1/orders", json=ORDER, headers=ALICE)
            assert answered.status_code == 202
            assert answered.elapsed.total_seconds() < 5
            # They are ended when their time is up, without the clients' help.
            eventually(lambda: gateway.metric("exchange_gateway_silent_connections") == 0, 60)
            assert gateway.http.get("/readyz").status_code == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- limits, absence, drain ----------------------------------------------------------------------


@pytest.fixture
def own(echo_address: str, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that the test may deprive of its services; at most 40 connections, 20 waiting orders."""
    with (
        running_backend() as backend,
        running_gateway(
            backend, echo_address, tmp_path / "gateway.log", max_connections=40, queue_orders=20
        ) as running,
    ):
        yield running


def test_silent_connections_make_room_for_those_who_speak(own: GatewayProcess) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(own.connect()) for _ in range(80)]
        assert own.http.get("/api/v1/time").status_code == 200
        assert silent[0].recv(1) == b""  # The longest silent went first.
        with own.connect() as sock:
            sock.sendall(GET_TIME)
            assert read_answer(sock)[0] == 200


def test_when_all_connections_speak_a_newcomer_is_told_to_come_back(own: GatewayProcess) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(own.connect())
            sock.sendall(UPGRADE)
            assert sock.recv(1)  # Spliced. Two files each, so 20 fill the gateway.
            if own_is_full(own):
                break
        with own.connect() as late:
            late.sendall(GET_TIME)
            status, headers, body = read_answer(late)
    assert (status, json.loads(body)["error"]["code"]) == (503, "UNAVAILABLE")
    assert int(headers["retry-after"]) >= 1


def own_is_full(own: GatewayProcess) -> bool:
    with own.connect() as sock:
        sock.sendall(GET_TIME)
        return read_answer(sock)[0] == 503


def test_one_address_may_not_hold_all_connections(
    backend: Backend, echo_address: str, tmp_path: Path
) -> None:
    log = tmp_path / "gateway.log"
    with (
        running_gateway(backend, echo_address, log, max_connections_per_ip=10) as own,
        ExitStack() as stack,
    ):
        own.http.close()  # What it has kept open counts as well.
        eventually(lambda: read_once(own) == 200)
        held = [stack.enter_context(own.connect()) for _ in range(10)]
        for sock in held:
            sock.sendall(GET_TIME)
            assert read_answer(sock)[0] == 200
        with own.connect() as late:
            late.sendall(GET_TIME)
            status, headers, body = read_answer(late)
        assert (status, json.loads(body)["error"]["code"]) == (429, "TOO_MANY_CONNECTIONS")
        assert int(headers["retry-after"]) >= 1
        held.pop().close()
        eventually(lambda: read_once(own) == 200)


def read_once(own: GatewayProcess) -> int:
    """The status of one request on a connection of its own."""
    with own.connect() as sock:
        sock.sendall(GET_TIME)
        return read_answer(sock)[0]


def test_while_order_service_is_away(own: GatewayProcess) -> None:
    backend = own.backend
    assert own.http.post("/api/v1/orders", json=ORDER, headers=ALICE).status_code == 202
    backend.stop()
    asked = [
        own.http.post("/api/v1/orders", json=ORDER, headers=ALICE),
        own.http.get("/api/v1/accounts", headers=ALICE),
        own.http.get("/api/v1/orderbook", params={"symbol": "BTC-USD"}),
    ]
    for response in asked:
        assert (response.status_code, response.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert int(response.headers["retry-after"]) >= 1
    assert "same client_order_id" in asked[0].json()["error"]["message"]
    ready = own.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["parts"]["order-service"]["ok"] is False
    assert own.http.get("/healthz").status_code == 200
    assert own.http.get("/api/v1/markets").status_code == 200  # Known from before.
    backend.start()
    eventually(lambda: own.http.get("/readyz").status_code == 200)
    eventually(lambda: own.http.post("/api/v1/orders", json=ORDER, headers=ALICE).status_code == 202)


def test_a_full_queue_is_busy(own: GatewayProcess) -> None:
    own.backend.may_place.clear()
    batch = [ORDER] * 15
    with _post_in_background(own, batch) as under_way:
        eventually(lambda: len(own.backend.seen.places) == 1)
        with _post_in_background(own, batch) as queued:
            eventually(lambda: own.metric("exchange_gateway_queued_orders") == 15)
            busy = own.http.post("/api/v1/orders/batch", json=batch, headers=ALICE)
            assert (busy.status_code, busy.json()["error"]["code"]) == (503, "BUSY")
            assert int(busy.headers["retry-after"]) >= 1
            own.backend.may_place.set()
            assert read_answer(under_way)[0] == read_answer(queued)[0] == 202
    assert own.backend.seen.orders == 30


def _post_in_background(own: GatewayProcess, batch: list[dict[str, object]]) -> socket.socket:
    body = json.dumps(batch).encode()
    sock = own.connect()
    sock.sendall(
        b"POST /api/v1/orders/batch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )
    return sock


def test_without_market_data_a_websocket_is_503(backend: Backend, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with running_gateway(backend, address, tmp_path / "gateway.log") as own, own.connect() as sock:
        sock.sendall(UPGRADE)
        status, headers, body = read_answer(sock)
    assert (status, json.loads(body)["error"]["code"]) == (503, "UNAVAILABLE")
    assert headers["retry-after"]


def test_sigterm_finishes_what_is_under_way_and_takes_nothing_new(own: GatewayProcess) -> None:
    with ExitStack() as stack:
        idle, silent, spliced = (stack.enter_context(own.connect()) for _ in range(3))
        idle.sendall(GET_TIME)
        assert read_answer(idle)[0] == 200
        spliced.sendall(UPGRADE)
        assert spliced.recv(65536)
        own.backend.may_place.clear()
        waiting = stack.enter_context(_post_in_background(own, [ORDER]))
        eventually(lambda: len(own.backend.seen.places) == 1)
        own.process.send_signal(signal.SIGTERM)
        assert read_all(idle) == b""
        assert read_all(silent) == b""
        assert read_all(spliced) == b""
        own.backend.may_place.set()
        assert read_answer(waiting)[0] == 202
        assert own.process.wait(10) == 0


def test_a_drain_answers_who_still_asks_and_says_that_it_is_the_last_time(own: GatewayProcess) -> None:
    with own.connect() as sock, own.connect() as other:
        for each in (sock, other):
            each.sendall(GET_TIME)
            assert "connection" not in read_answer(each)[1]
        own.process.send_signal(signal.SIGTERM)
        eventually(lambda: _says_it_is_the_last(sock))
        assert read_all(sock) == b""
        assert read_all(other) == b""
        other.sendall(GET_TIME)  # Crosses with the end: nobody answers, and nobody cuts off.
        assert own.process.wait(10) == 0


def _says_it_is_the_last(sock: socket.socket) -> bool:
    sock.sendall(GET_TIME)
    status, headers, _ = read_answer(sock)
    assert status == 200
    return headers.get("connection") == "close"


def test_the_log_is_json_and_holds_no_token(own: GatewayProcess, tmp_path: Path) -> None:
    own.backend.stop()
    assert own.http.get("/api/v1/accounts", headers=ALICE | {"X-Request-Id": "logged"}).status_code == 503
    assert gateway_lines(tmp_path)[0]["event"] == "listening"

    def told() -> bool:  # After the answer, so perhaps a moment later.
        mine = [line for line in gateway_lines(tmp_path) if line.get("request_id") == "logged"]
        return any((line.get("route"), line.get("status")) == ("/api/v1/accounts", 503) for line in mine)

    eventually(told)
    text = (tmp_path / "gateway.log").read_text()
    assert not re.search(r"\balice\b", text)


def gateway_lines(folder: Path) -> list[dict[str, object]]:
    """The gateway's own lines; gRPC's core writes some of another shape."""
    lines = (folder / "gateway.log").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def test_a_wrong_port_stops_the_start_with_a_sentence(own: GatewayProcess) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gateway"],
        env=os.environ | {"EXCHANGE_PORT": str(own.port), "EXCHANGE_LOCAL_MODE": "true"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert "EXCHANGE_PORT" in done.stderr.splitlines()[-1]


def test_httpx_keeps_its_connection(gateway: GatewayProcess) -> None:
    with httpx.Client(base_url=gateway.http.base_url, trust_env=False) as client:
        for _ in range(5):
            assert client.post("/api/v1/orders", json=ORDER, headers=ALICE).status_code == 202
            assert client.get("/api/v1/time").status_code == 200
    assert gateway.metric("exchange_gateway_connections") < 20
