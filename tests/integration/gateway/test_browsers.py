"""What browsers are told, and which pages may read the API: closed, and opened for a named origin."""

from collections.abc import Iterator

import httpx
import pytest

from tests.integration.gateway.backend import Backend
from tests.integration.gateway.conftest import GatewayProcess, running_gateway

FRIEND, STRANGER = "https://friend.example", "https://stranger.example"
PATHS = ("/", "/docs", "/static/page.js", "/api/v1/time", "/api/v1/accounts", "/nowhere", "/metrics")
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.fixture(scope="module")
def opened(
    backend: Backend, echo_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    """A gateway behind TLS, whose API a page of FRIEND may use."""
    log = tmp_path_factory.mktemp("opened") / "gateway.log"
    with running_gateway(backend, echo_address, log, cors_origins=FRIEND, behind_tls=True) as running:
        yield running


def named(response: httpx.Response) -> set[str]:
    return {name for name in response.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_protected(gateway: GatewayProcess, path: str) -> None:
    response = gateway.http.get(path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-frame-options"] == "DENY"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "strict-transport-security" not in response.headers
    kept = "no-cache" if path.startswith("/static") or path in ("/", "/docs") else "no-store"
    assert response.headers["cache-control"] == kept


def test_so_is_what_never_reaches_the_application(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"GARBAGE\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"x-content-type-options: nosniff" in answer


@pytest.mark.parametrize("origin", [FRIEND, STRANGER, "null"])
def test_no_other_page_may_read_the_api(gateway: GatewayProcess, origin: str) -> None:
    for path in PATHS:
        assert named(gateway.http.get(path, headers={"Origin": origin})) == set()
    refused = gateway.http.options("/api/v1/orders", headers={"Origin": origin, **PREFLIGHT})
    assert (refused.status_code, named(refused)) == (405, set())


def test_a_named_origin_may(opened: GatewayProcess) -> None:
    for path, status in (("/api/v1/time", 200), ("/api/v1/accounts", 401), ("/api/v1/nowhere", 404)):
        response = opened.http.get(path, headers={"Origin": FRIEND})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == FRIEND
        assert "X-Request-Id" in response.headers["access-control-expose-headers"]
        assert response.headers["vary"] == "origin"
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["strict-transport-security"].startswith("max-age=")


def test_a_named_origin_is_told_what_it_may_send(opened: GatewayProcess) -> None:
    response = opened.http.options("/api/v1/orders", headers={"Origin": FRIEND, **PREFLIGHT})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (204, FRIEND)
    assert "DELETE" in response.headers["access-control-allow-methods"]
    assert "Idempotency-Key" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize("origin", [STRANGER, FRIEND + ".evil.example", FRIEND.upper(), "null", ""])
def test_no_other_origin_may(opened: GatewayProcess, origin: str) -> None:
    assert named(opened.http.get("/api/v1/time", headers={"Origin": origin})) == set()
    refused = opened.http.options("/api/v1/orders", headers={"Origin": origin, **PREFLIGHT})
    assert (refused.status_code, named(refused)) == (405, set())


def test_only_the_api_is_opened(opened: GatewayProcess) -> None:
    for path in ("/", "/metrics", "/healthz"):
        assert named(opened.http.get(path, headers={"Origin": FRIEND})) == set()
