"""Limits before a real Valkey: what is told, what is shared, and what happens while Valkey is away."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
from anyio.from_thread import start_blocking_portal

from daemons.local.ports import free_port
from daemons.local.process import Child
from daemons.local.valkey import embedded_valkey
from tests.integration.gateway.backend import Backend
from tests.integration.gateway.conftest import GatewayProcess, running_gateway
from tests.integration.gateway.test_connections import eventually
from tests.integration.gateway.test_http import ALICE, ORDER

BOB = {"Authorization": "Bearer bob"}
LIMITS = {"limit_ip_10s": 200, "limit_user_10s": 30, "limit_orders_10s": 20, "limit_orders_day": 1_000}


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[tuple[str, Child]]:
    """A Valkey of the test's own: its URL and its process."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(embedded_valkey(tmp_path, free_port(), print)) as running,
    ):
        yield running


@pytest.fixture
def two(
    valkey: tuple[str, Child], backend: Backend, echo_address: str, tmp_path: Path
) -> Iterator[tuple[GatewayProcess, GatewayProcess]]:
    """Two gateways with one Valkey."""
    url, _ = valkey
    with (
        running_gateway(backend, echo_address, tmp_path / "1.log", redis_url=url, **LIMITS) as one,
        running_gateway(backend, echo_address, tmp_path / "2.log", redis_url=url, **LIMITS) as other,
    ):
        yield one, other


def standing(answer: httpx.Response) -> tuple[int, int, int]:
    """Limit, used, remaining."""
    names = ("limit", "used", "remaining")
    limit, used, remaining = (int(answer.headers[f"ratelimit-{name}"]) for name in names)
    return limit, used, remaining


def place(gateway: GatewayProcess, orders: int, who: dict[str, str] = ALICE) -> httpx.Response:
    if orders == 1:
        return gateway.http.post("/api/v1/orders", json=ORDER, headers=who)
    return gateway.http.post("/api/v1/orders/batch", json=[ORDER] * orders, headers=who)


def must_be_refused(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "RATE_LIMITED")
    assert 1 <= int(answer.headers["retry-after"]) <= 11


def test_orders_of_a_user_are_counted_by_all_gateways_together(
    two: tuple[GatewayProcess, GatewayProcess],
) -> None:
    one, other = two
    assert standing(place(one, 1)) == (20, 1, 19)
    assert standing(place(other, 15)) == (20, 16, 4)
    placed = one.backend.seen.orders
    refused = place(one, 10)
    must_be_refused(refused)
    assert standing(refused) == (20, 16, 4)
    assert refused.json()["error"]["details"] == {"limit": "20", "used": "16"}
    assert one.backend.seen.orders == placed
    assert place(other, 4).status_code == 202  # A smaller one fits.
    must_be_refused(place(one, 1))
    assert place(one, 1, BOB).status_code == 202
    # Reads and cancels have a limit of their own; also what is refused for other reasons tells it.
    assert standing(one.http.get("/api/v1/orders", headers=ALICE)) == (30, 2, 28)
    assert standing(one.http.delete("/api/v1/orders/xyz", headers=ALICE)) == (30, 3, 27)
    for _ in range(27):
        assert other.http.delete("/api/v1/orders/77", headers=ALICE).status_code == 202
    must_be_refused(one.http.get("/api/v1/accounts", headers=ALICE))


def test_public_reads_and_wrong_credentials_are_counted_by_address(
    two: tuple[GatewayProcess, GatewayProcess],
) -> None:
    one, other = two
    assert standing(one.http.get("/api/v1/time")) == (200, 1, 199)
    assert standing(other.http.get("/api/v1/orderbook?symbol=BTC-USD")) == (200, 3, 197)
    answers = [(one, other)[number % 2].http.get("/api/v1/time") for number in range(200)]
    assert [answer.status_code for answer in answers] == [200] * 197 + [429] * 3
    must_be_refused(answers[-1])
    assert one.http.get("/readyz").status_code == 200  # Probes are counted apart,
    assert place(one, 1).status_code == 202  # and users too.
    wrong = {"Authorization": "Bearer mallory"}
    answers = [one.http.get("/api/v1/accounts", headers=wrong) for _ in range(22)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 2
    assert one.metric('exchange_gateway_rate_limited_total{rule="failures"}') == 2


def test_behind_a_proxy_it_is_the_client_who_is_counted(
    backend: Backend, echo_address: str, tmp_path: Path
) -> None:
    log = tmp_path / "gateway.log"
    with running_gateway(
        backend, echo_address, log, trusted_proxies="127.0.0.0/8", limit_ip_10s=10
    ) as gateway:
        for client in ("192.0.2.7", "192.0.2.8"):
            said = {"X-Forwarded-For": f"203.0.113.9, {client}"}
            assert standing(gateway.http.get("/api/v1/time", headers=said)) == (10, 1, 9)


def test_behind_a_proxy_market_data_is_told_the_clients_address(backend: Backend, tmp_path: Path) -> None:
    upgrade = (
        b"GET /ws HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"X-Forwarded-For: 198.51.100.1\r\nx-forwarded-for: 203.0.113.9, 192.0.2.7\r\n\r\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(20)
        address, log = f"127.0.0.1:{upstream.getsockname()[1]}", tmp_path / "gateway.log"
        for trusted, client in (("127.0.0.0/8", b"192.0.2.7"), ("", b"127.0.0.1")):
            running = running_gateway(backend, address, log, trusted_proxies=trusted)
            with running as gateway, gateway.connect() as sock:
                sock.sendall(upgrade)
                accepted, _ = upstream.accept()
                with accepted, accepted.makefile("rb") as stream:
                    assert stream.readline().startswith(b"PROXY TCP4 " + client + b" 127.0.0.1 ")


@pytest.mark.parametrize("how", ["hangs", "is killed"])
def test_without_valkey_each_gateway_limits_by_itself(
    two: tuple[GatewayProcess, GatewayProcess], valkey: tuple[str, Child], how: str
) -> None:
    one, _ = two
    url, child = valkey
    assert standing(place(one, 1)) == (20, 1, 19)
    os.kill(child.pid, signal.SIGSTOP if how == "hangs" else signal.SIGKILL)
    begun_s = time.monotonic()
    answers = [place(one, 1) for _ in range(30)]
    # A wait of 50 ms at most, once; the rest is the machine's.
    assert time.monotonic() - begun_s < 3
    assert [answer.status_code for answer in answers] == [202] * 20 + [429] * 10
    must_be_refused(answers[-1])
    assert one.metric("exchange_limits_degraded") == 1
    ready = one.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["parts"]["redis"]["ok"] is False
    if how == "hangs":
        os.kill(child.pid, signal.SIGCONT)
        eventually(lambda: one.metric("exchange_limits_degraded") == 0)
        with redis.Redis.from_url(url) as client:
            client.flushall()
            client.script_flush()
        assert standing(place(one, 1)) == (20, 1, 19)
