"""`?wait=settled` and lists, with two order-services: whoever settles, whoever waits hears of it."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from daemons.local.servers import Servers
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User, running_exchange
from tests.integration.end_to_end.shop import clear, get, limit, market, place, settled, until

WAIT = "/api/v1/orders?wait=settled&timeout_ms=10000"
MATCHINGS = ("matching-1", "matching-2")


@pytest.fixture(scope="module")
def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    logs: Path = tmp_path_factory.mktemp("exchange")
    with running_exchange(servers, logs, order_services=2, settle_waiters=30) as running:
        yield running


@pytest.fixture
def user(exchange: Exchange) -> Iterator[User]:
    user = exchange.join()
    yield user
    clear(exchange, user)


@contextmanager
def unsettled(exchange: Exchange) -> Iterator[None]:
    """Nobody matches meanwhile, so nothing is settled."""
    for name in MATCHINGS:
        exchange.freeze(name)
    try:
        yield
    finally:
        for name in MATCHINGS:
            exchange.thaw(name)


def post(exchange: Exchange, user: User, path: str, body: object, **headers: str) -> httpx.Response:
    return exchange.http.post(path, json=body, headers=user.headers | headers, timeout=30)


def test_the_answer_has_the_order_as_it_stands(exchange: Exchange, user: User) -> None:
    for symbol in ("BTC-USD", "ETH-USD") * 3:  # By either order-service, in partitions of either.
        resting = post(exchange, user, WAIT, limit("BUY", "3000", "0.01", symbol=symbol))
        assert (resting.status_code, resting.json()["status"]) == (201, "OPEN")
        assert resting.json() == get(exchange, f"/api/v1/orders/{resting.json()['order_id']}", user)
    taker = exchange.join()
    sold = post(exchange, taker, WAIT, market("SELL", quantity="0.02"))
    assert (sold.status_code, sold.json()["status"], sold.json()["filled_quantity"]) == (
        201,
        "FILLED",
        "0.02000",
    )
    refused = post(exchange, user, WAIT, limit("BUY", "3000", "1000000"))
    assert refused.status_code == 422
    batch = [limit("BUY", "2000", "0.01"), limit("BUY", "2000", "0.01", symbol="ETH-USD"), market("SELL")]
    answer = post(exchange, user, WAIT.replace("?", "/batch?"), batch)
    assert answer.status_code == 201
    results = answer.json()["results"]
    assert [one.get("status", "error") for one in results] == ["OPEN", "OPEN", "error"]


@pytest.mark.parametrize(
    "query", ["wait=filled", "wait=settled&timeout_ms=10001", "wait=settled&timeout_ms=0"]
)
def test_other_waits_place_nothing(exchange: Exchange, user: User, query: str) -> None:
    wrong = post(exchange, user, f"/api/v1/orders?{query}", limit("BUY", "3000", "0.01"))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "MALFORMED")
    assert get(exchange, "/api/v1/orders", user)["orders"] == []


def test_when_the_time_is_over_the_order_is_accepted(exchange: Exchange, user: User) -> None:
    path = "/api/v1/orders?wait=settled&timeout_ms=200"
    order = limit("BUY", "3000", "0.01", client_order_id="late")
    with unsettled(exchange):
        began_s = time.monotonic()
        answer = post(exchange, user, path, order, **{"Idempotency-Key": "late"})
        assert 0.2 <= time.monotonic() - began_s < 5
        assert (answer.status_code, answer.json()["status"]) == (202, "ACCEPTED")
        again = post(exchange, user, path, order, **{"Idempotency-Key": "late"})
        assert again.content == answer.content
        assert post(exchange, user, path, order).status_code == 200
        batch = post(exchange, user, path.replace("?", "/batch?"), [order])
        assert (batch.status_code, batch.json()["results"][0]["status"]) == (202, "ACCEPTED")


def test_those_who_wait_are_few_and_one_who_goes_makes_room(exchange: Exchange, user: User) -> None:
    with unsettled(exchange):
        sockets = [leave_later(exchange, user) for _ in range(3)]
        until(lambda: waiters(exchange, "gateway"), (3.0).__eq__)
        until(lambda: len(get(exchange, "/api/v1/orders", user)["orders"]), (3).__eq__)
        full = post(exchange, user, WAIT, limit("BUY", "3000", "0.01"))
        assert (full.status_code, full.json()["error"]["code"]) == (503, "BUSY")
        assert len(get(exchange, "/api/v1/orders", user)["orders"]) == 3
        for one in sockets:
            one.close()
        until(lambda: waiters(exchange, "gateway"), (0.0).__eq__, within_s=5)
        until(lambda: waiters(exchange, "order-service"), (0.0).__eq__, within_s=5)


def leave_later(exchange: Exchange, user: User) -> socket.socket:
    """A client that sends an order, waits for its settlement, and can go."""
    body = json.dumps(limit("BUY", "3000", "0.01")).encode()
    head = f"POST {WAIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
    client = socket.create_connection(("127.0.0.1", exchange.ports.gateway))
    client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def waiters(exchange: Exchange, kind: str) -> float:
    """Of all daemons of a kind."""
    name = "exchange_gateway_settle_waiters" if kind == "gateway" else "exchange_settle_waiters"
    return sum(exchange.metrics(one)[name] for one in exchange.daemons if one.startswith(kind))


def test_a_client_that_only_closes_its_side_is_answered_at_once(exchange: Exchange, user: User) -> None:
    with unsettled(exchange), leave_later(exchange, user) as client:
        until(lambda: waiters(exchange, "order-service"), (1.0).__eq__)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(5)
        assert client.recv(65536).startswith(b"HTTP/1.1 202")


def test_a_drain_answers_who_waits(exchange: Exchange, user: User) -> None:
    with unsettled(exchange), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(post, exchange, user, WAIT, limit("BUY", "3000", "0.01"))
        until(lambda: waiters(exchange, "order-service"), (1.0).__eq__)
        assert exchange.terminate("gateway") == 0
        assert waiting.result().status_code == 202
    exchange.start("gateway")
    exchange.wait_ready()


def test_bots_wait_by_grpc(exchange: Exchange, user: User) -> None:
    bearer = (("authorization", f"Bearer {user.token}"),)
    order = pb.NewOrder(
        symbol="BTC-USD", side=ty.SIDE_BUY, type=ty.ORDER_TYPE_LIMIT, price_ticks=300_000, qty_lots=1_000
    )
    with grpc.insecure_channel(exchange.orders_address) as channel:
        orders: Any = orders_pb2_grpc.OrdersStub(channel)
        accepted = orders.Submit(pb.SubmitRequest(order=order), metadata=bearer).accepted
        request = pb.AwaitRequest(accepted=[accepted], timeout_ms=10_000)
        [found] = orders.Await(request, metadata=bearer).orders
        assert (found.order_id, found.status) == (accepted.order_id, ty.ORDER_STATUS_OPEN)
        stranger = (("authorization", f"Bearer {exchange.join().token}"),)
        assert not orders.Await(request, metadata=stranger).orders


def test_lists_over_http(exchange: Exchange, user: User) -> None:
    ids = []
    for number in range(6):
        side, price = ("BUY", "2900") if number % 2 else ("SELL", "9900000")
        ids.append(place(exchange, user, limit(side, price, "0.01"))["order_id"])
    first = settled(exchange, user, ids[0])
    for order_id in ids[1:]:
        settled(exchange, user, order_id)
    page = get(exchange, "/api/v1/orders?side=BUY&limit=2", user)
    rest = get(exchange, f"/api/v1/orders?side=BUY&limit=2&cursor={page['cursor']}", user)
    assert {order["order_id"] for order in page["orders"] + rest["orders"]} == set(ids[1::2])
    after = get(exchange, f"/api/v1/orders?from={first['created_at']}&to={first['created_at']}", user)
    assert after == {"orders": [], "cursor": None}
    for path in ("orders?side=SELL&", "orders?", "fills?"):
        wrong = get(exchange, f"/api/v1/{path}cursor={page['cursor']}", user, 400)
        assert (wrong["error"]["code"], list(wrong["error"]["details"])) == ("MALFORMED", ["cursor"])
    assert get(exchange, f"/api/v1/fills?order_id={ids[0]}&side=BUY", user) == {"fills": [], "cursor": None}
    taker = exchange.join()
    post(exchange, taker, WAIT, market("SELL", quantity="0.01"))
    [fill] = get(exchange, f"/api/v1/fills?order_id={ids[1]}", user)["fills"]
    assert (fill["order_id"], fill["side"]) == (ids[1], "BUY")
    assert get(exchange, f"/api/v1/fills?order_id={ids[1]}", taker)["fills"] == []
    assert get(exchange, f"/api/v1/fills?order_id={'9' * 19}", user)["fills"] == []
