"""The HTTP contract at the gateway's edge: answers, refusals, headers."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.gateway.backend import FILLED_ORDER_ID, FOREIGN_ORDER_ID
from tests.integration.gateway.conftest import GatewayProcess

ALICE = {"Authorization": "Bearer alice"}
ORDER: dict[str, object] = {
    "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "100000.50", "quantity": "0.00100",
}  # fmt: skip


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error object, of exactly the documented shape."""
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    answer = response.json()
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"code", "message", "details"}
    assert answer["error"]["message"]
    error: dict[str, object] = answer["error"]
    return error


def test_an_order_is_accepted_once(gateway: GatewayProcess) -> None:
    order = ORDER | {"client_order_id": "once"}
    first = gateway.http.post("/api/v1/orders", json=order, headers=ALICE)
    again = gateway.http.post("/api/v1/orders", json=order, headers=ALICE)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    assert first.json() | {"order_id": "", "sequence": 0} == {
        "order_id": "", "client_order_id": "once", "symbol": "BTC-USD", "sequence": 0, "status": "ACCEPTED",
        "created_at": "2026-01-02T03:04:05.000006Z",
    }  # fmt: skip
    assert isinstance(first.json()["order_id"], str)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "MALFORMED"),
        (b"", 400, "MALFORMED"),
        (b"[]", 400, "MALFORMED"),
        (json.dumps(ORDER | {"user_id": "1002"}).encode(), 400, "MALFORMED"),
        (json.dumps(ORDER | {"side": "HOLD"}).encode(), 400, "MALFORMED"),
        (json.dumps(ORDER | {"symbol": "DOGE-USD"}).encode(), 404, "UNKNOWN_SYMBOL"),
        (json.dumps(ORDER | {"price": "NaN"}).encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER | {"price": "-1"}).encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER | {"price": "0"}).encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER | {"price": "1" * 40}).encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER | {"price": "1.005"}).encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER).replace('"100000.50"', "1e400").encode(), 422, "INVALID_PRICE"),
        (json.dumps(ORDER).replace('"100000.50"', "NaN").encode(), 400, "MALFORMED"),
        (json.dumps(ORDER | {"quantity": "0.000001"}).encode(), 422, "INVALID_QUANTITY"),
        (json.dumps(ORDER | {"quantity": "0.00001", "price": "1"}).encode(), 422, "NOTIONAL_TOO_SMALL"),
        (json.dumps(ORDER | {"quantity": "90000", "price": "90000000"}).encode(), 422, "NOTIONAL_TOO_LARGE"),
    ],
)
def test_a_bad_order_reaches_nobody(gateway: GatewayProcess, content: bytes, status: int, code: str) -> None:
    before = gateway.backend.seen.orders
    response = gateway.http.post("/api/v1/orders", content=content, headers=ALICE)
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert gateway.backend.seen.orders == before


def test_a_batch_goes_in_one_call_and_errors_stand_in_their_places(gateway: GatewayProcess) -> None:
    calls = len(gateway.backend.seen.places)
    batch = [ORDER, ORDER | {"price": "0"}, ORDER | {"user_id": 1}, ORDER]
    response = gateway.http.post("/api/v1/orders/batch", json=batch, headers=ALICE)
    assert response.status_code == 202
    results = response.json()["results"]
    assert ["order_id" in result for result in results] == [True, False, False, True]
    assert [result["error"]["code"] for result in results[1:3]] == ["INVALID_PRICE", "MALFORMED"]
    assert [len(place.orders) for place in gateway.backend.seen.places[calls:]] == [2]


def test_a_batch_of_1001_is_refused_as_a_whole_and_1000_are_not(gateway: GatewayProcess) -> None:
    before = gateway.backend.seen.orders
    refused = gateway.http.post("/api/v1/orders/batch", json=[ORDER] * 1001, headers=ALICE)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "MALFORMED")
    assert gateway.backend.seen.orders == before
    taken = gateway.http.post("/api/v1/orders/batch", json=[ORDER] * 1000, headers=ALICE)
    assert taken.status_code == 202
    assert gateway.backend.seen.orders == before + 1000


def test_a_batch_without_valid_orders_calls_nobody(gateway: GatewayProcess) -> None:
    calls = len(gateway.backend.seen.places)
    assert gateway.http.post("/api/v1/orders/batch", json=[], headers=ALICE).json() == {"results": []}
    response = gateway.http.post("/api/v1/orders/batch", json=[{}], headers=ALICE)
    assert response.json()["results"][0]["error"]["code"] == "MALFORMED"
    assert len(gateway.backend.seen.places) == calls


def test_a_body_over_the_limit(gateway: GatewayProcess) -> None:
    for content in (b" " * (1 << 20) + b"1", _chunks(b" " * 65536, 17), _chunks(b" " * 65536, 400)):
        response = httpx.post(
            f"{gateway.http.base_url}/api/v1/orders", content=content, headers=ALICE, trust_env=False
        )
        assert (response.status_code, error_of(response)["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert response.headers["connection"] == "close"
    at_limit = b" " * ((1 << 20) - 2) + b"{}"
    assert gateway.http.post("/api/v1/orders", content=at_limit, headers=ALICE).status_code == 400


def _chunks(chunk: bytes, times: int) -> Iterator[bytes]:
    for _ in range(times):
        yield chunk


def test_a_body_too_large_by_its_own_words_is_answered_before_it_comes(gateway: GatewayProcess) -> None:
    with gateway.connect() as sock:
        sock.sendall(b"POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n")
        answer = _read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"PAYLOAD_TOO_LARGE" in answer


def test_nobody_and_somebody_unknown(gateway: GatewayProcess) -> None:
    for headers in ({}, {"Authorization": "Bearer mallory"}, {"Authorization": "Basic YTpi"}):
        for method, path in (
            ("POST", "/orders"),
            ("GET", "/orders"),
            ("DELETE", "/orders/7"),
            ("GET", "/fills"),
        ):
            response = gateway.http.request(method, f"/api/v1{path}", headers=headers)
            assert (response.status_code, error_of(response)["code"]) == (401, "UNAUTHENTICATED")
            assert response.headers["www-authenticate"] == "Bearer"


def test_look_ups_of_a_token_are_shared(gateway: GatewayProcess) -> None:
    before = gateway.backend.seen.look_ups
    for _ in range(20):
        assert (
            gateway.http.get("/api/v1/accounts", headers={"Authorization": "Bearer bob"}).status_code == 200
        )
    assert gateway.backend.seen.look_ups - before <= 3


def test_the_services_hear_who_asks_and_the_requests_id(gateway: GatewayProcess) -> None:
    headers = ALICE | {"X-Request-Id": "my-own.id:7"}
    response = gateway.http.get("/api/v1/orders/7", headers=headers)
    assert response.headers["x-request-id"] == "my-own.id:7"
    method, metadata = gateway.backend.seen.calls[-1]
    assert (method, metadata["x-user-id"], metadata["x-request-id"]) == ("GetOrder", "1001", "my-own.id:7")


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "<script>"])
def test_an_odd_request_id_is_replaced(gateway: GatewayProcess, sent: str) -> None:
    response = gateway.http.get("/api/v1/time", headers={"X-Request-Id": sent})
    assert re.fullmatch("[0-9a-f]{16}", response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("path", "status", "code", "detail"),
    [
        ("/orderbook", 400, "MALFORMED", "symbol"),
        ("/orderbook?symbol=DOGE-USD", 404, "UNKNOWN_SYMBOL", "symbol"),
        ("/orderbook?symbol=BTC-USD&depth=0", 400, "MALFORMED", "depth"),
        ("/orderbook?symbol=BTC-USD&depth=1001", 400, "MALFORMED", "depth"),
        ("/trades?symbol=BTC-USD&limit=x", 400, "MALFORMED", "limit"),
        ("/trades?symbol=BTC-USD&limit=1&limit=2", 400, "MALFORMED", "limit"),
        ("/klines?symbol=BTC-USD&interval=2m", 400, "MALFORMED", "interval"),
        ("/ticker?symbol=BTC-USD&user_id=7", 400, "MALFORMED", "user_id"),
        ("/orders?status=DONE", 400, "MALFORMED", "status"),
        ("/orders?cursor=%27--", 400, "MALFORMED", "cursor"),
        ("/orders?client_order_id=a%20b", 400, "MALFORMED", "client_order_id"),
        ("/orders?symbol=DOGE-USD", 404, "UNKNOWN_SYMBOL", "symbol"),
        ("/fills?limit=-1", 400, "MALFORMED", "limit"),
        ("/orders/abc", 404, "ORDER_NOT_FOUND", None),
        ("/orders/99999999999999999999", 404, "ORDER_NOT_FOUND", None),
        (f"/orders/{FOREIGN_ORDER_ID}", 404, "ORDER_NOT_FOUND", None),
        ("/nothing", 404, "NOT_FOUND", None),
        ("/orders/7/", 404, "NOT_FOUND", None),
    ],
)
def test_a_bad_query(gateway: GatewayProcess, path: str, status: int, code: str, detail: str | None) -> None:
    response = gateway.http.get(f"/api/v1{path}", headers=ALICE)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code)
    assert detail is None or detail in dict(error["details"])  # type: ignore[call-overload]


def test_a_wrong_method(gateway: GatewayProcess) -> None:
    for method, path in (("PUT", "/api/v1/orders"), ("POST", "/api/v1/markets"), ("DELETE", "/")):
        response = gateway.http.request(method, path)
        assert (response.status_code, error_of(response)["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert "GET" in response.headers["allow"]


def test_cancels(gateway: GatewayProcess) -> None:
    http = gateway.http
    done = http.delete("/api/v1/orders/7", headers=ALICE)
    assert (done.status_code, done.json()) == (202, {"order_id": "7", "sequence": 9})
    ended = http.delete(f"/api/v1/orders/{FILLED_ORDER_ID}", headers=ALICE)
    assert (ended.status_code, error_of(ended)["code"]) == (409, "ORDER_NOT_LIVE")
    foreign = http.delete(f"/api/v1/orders/{FOREIGN_ORDER_ID}", headers=ALICE)
    assert (foreign.status_code, error_of(foreign)["code"]) == (404, "ORDER_NOT_FOUND")
    both = http.delete("/api/v1/orders", params={"symbol": "BTC-USD"}, headers=ALICE)
    assert (both.status_code, both.json()) == (202, {"canceling": 2})


def test_what_users_read(gateway: GatewayProcess) -> None:
    order = gateway.http.get("/api/v1/orders/7", headers=ALICE).json()
    assert order == {
        "order_id": "7", "client_order_id": None, "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT",
        "time_in_force": "GTC", "post_only": False, "stp": "CANCEL_TAKER", "price": "100000.50",
        "quantity": "0.00100", "quote_quantity": None, "filled_quantity": "0.00005",
        "filled_quote": "50.00025", "fee": "0.0000001", "fee_asset": "BTC", "status": "PARTIALLY_FILLED",
        "reason": None, "sequence": 4, "created_at": "2026-01-02T03:04:05.000006Z",
        "updated_at": "2026-01-02T03:04:05.000006Z",
    }  # fmt: skip
    listed = gateway.http.get("/api/v1/orders", params={"status": "OPEN", "limit": 1}, headers=ALICE).json()
    assert listed == {"orders": [order], "cursor": "7"}
    fills = gateway.http.get("/api/v1/fills", headers=ALICE).json()
    assert fills["cursor"] is None
    assert fills["fills"][0]["liquidity"] == "MAKER"
    assert fills["fills"][0]["fee_asset"] == "BTC"
    accounts = gateway.http.get("/api/v1/accounts", headers=ALICE).json()
    assert accounts == [{"asset": "USD", "available": "1000000", "held": "0.5"}]


def test_what_everybody_reads(gateway: GatewayProcess) -> None:
    http = gateway.http
    assert http.get("/api/v1/markets").json()[0] == {
        "symbol": "BTC-USD", "base": "BTC", "quote": "USD", "tick_size": "0.01", "lot_size": "0.00001",
        "min_notional": "1", "maker_fee_bps": 10, "taker_fee_bps": 20, "status": "ACTIVE",
    }  # fmt: skip
    book = http.get("/api/v1/orderbook", params={"symbol": "BTC-USD", "depth": 2}).json()
    assert book == {
        "symbol": "BTC-USD", "sequence": 12, "asks": [],
        "bids": [["100000.00", "0.00001"], ["99999.99", "0.00002"]],
    }  # fmt: skip
    trade = http.get("/api/v1/trades", params={"symbol": "BTC-USD"}).json()[0]
    assert (trade["price"], trade["quantity"], trade["taker_side"]) == ("0.01", "0.00002", "SELL")
    candle = http.get("/api/v1/klines", params={"symbol": "BTC-USD"}).json()[0]
    assert (candle["open_time"], candle["trades"]) == ("2026-01-02T03:04:00.000000Z", 3)
    ticker = http.get("/api/v1/ticker", params={"symbol": "BTC-USD"}).json()
    assert (ticker["last"], ticker["bid"]) == ("100000.00", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", http.get("/api/v1/time").json()["time"])


def test_joining(gateway: GatewayProcess) -> None:
    joined = gateway.http.post("/api/v1/test/join")
    assert (joined.status_code, joined.json()["token"]) == (201, "alice")
    assert set(joined.json()) == {"user_id", "token", "api_key", "api_secret", "balances"}
    assert gateway.http.post("/api/v1/test/join", json={"user_id": 1}).status_code == 400
    recharged = gateway.http.post("/api/v1/test/recharge", headers=ALICE)
    assert (recharged.status_code, list(recharged.json())) == (200, ["balances"])


def test_concurrent_orders_share_calls_and_each_hears_its_own_answer(gateway: GatewayProcess) -> None:
    calls = len(gateway.backend.seen.places)
    gateway.backend.may_place.clear()
    try:
        with ThreadPoolExecutor(40) as pool:
            asked = [pool.submit(_place, gateway, f"concurrent-{n}") for n in range(40)]
            threading.Timer(0.5, gateway.backend.may_place.set).start()
            answers = [one.result().json()["client_order_id"] for one in asked]
    finally:
        gateway.backend.may_place.set()
    assert answers == [f"concurrent-{n}" for n in range(40)]
    assert len(gateway.backend.seen.places) - calls <= 10


def _place(gateway: GatewayProcess, name: str) -> httpx.Response:
    return httpx.post(
        f"{gateway.http.base_url}/api/v1/orders",
        json=ORDER | {"client_order_id": name},
        headers=ALICE,
        trust_env=False,
        timeout=20,
    )


def test_the_page_and_its_parts(gateway: GatewayProcess) -> None:
    page = gateway.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    names = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
    assert "/static/vendor/lightweight-charts.js" in names
    for name in names:
        part = gateway.http.get(name)
        assert part.status_code == 200
        cached = gateway.http.get(name, headers={"If-None-Match": part.headers["etag"]})
        assert (cached.status_code, cached.content) == (304, b"")
    assert gateway.http.get("/static/../__main__.py").status_code == 404
    assert gateway.http.get("/static/%2e%2e/__main__.py").status_code == 404
    assert gateway.http.head("/").status_code == 200


def test_metrics_name_routes_and_never_paths(gateway: GatewayProcess) -> None:
    gateway.http.get("/api/v1/orders/7", headers=ALICE)
    gateway.http.get("/secret-path")
    text = gateway.http.get("/metrics").text
    assert 'route="/api/v1/orders/<order_id>"' in text
    assert "secret-path" not in text
    for name in ("batch_orders_bucket", "queued_orders", "connections", "request_seconds_bucket", "splices"):
        assert f"exchange_gateway_{name}" in text


def _read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data
