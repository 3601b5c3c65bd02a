"""Signed requests on every way in: who is let in, and who is not, and why."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import httpx
import pytest
from websockets.sync.client import connect

from common.identity.permissions import READ, TRADE, WITHDRAW
from common.identity.signing import HmacKey
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.doors import (
    EVERY,
    GRPC_ORDER,
    READING,
    TRADING,
    Door,
    Key,
    WebSocket,
    code_of,
    make_ed25519_key,
    make_key,
    revoke,
    said,
)
from tests.integration.end_to_end.shop import Socket, limit, open_socket, place, until

ROOT = Path(__file__).parents[3]
FELT_S = 2.0  # A revocation, everywhere ...
SLACK_S = 1.5  # ... on a machine that has other things to do.


def ids(door: Door) -> str:
    return door.name


@pytest.fixture(scope="module")
def user(exchange: Exchange) -> User:
    return exchange.join()


@pytest.fixture(scope="module")
def key(exchange: Exchange, user: User) -> Key:
    return make_key(exchange, user)


@pytest.fixture(params=EVERY, ids=ids)
def door(request: pytest.FixtureRequest) -> Door:
    found: Door = request.param
    return found


def test_a_signature_opens_every_door_once(exchange: Exchange, key: Key, door: Door) -> None:
    given = key.headers(door.message)
    assert door.knock(exchange, given) == ""
    assert door.knock(exchange, given) == "SIGNATURE_REPEATED"
    assert door.knock(exchange, given | {"x-signature": given["x-signature"].upper()}) == "SIGNATURE_REPEATED"


def test_an_ed25519_key_does_too(exchange: Exchange, user: User) -> None:
    key = make_ed25519_key(exchange, user)
    for door in EVERY:
        assert door.knock(exchange, key.headers(door.message)) == ""
        wrong = key.headers(lambda timestamp: timestamp + "?")
        assert door.knock(exchange, wrong) == "SIGNATURE_WRONG"


def test_wrong_unknown_and_foreign_keys(exchange: Exchange, key: Key, door: Door) -> None:
    wrong = Key(key.api_key, HmacKey(b"guessed").sign)
    assert door.knock(exchange, wrong.headers(door.message)) == "SIGNATURE_WRONG"
    others = make_key(exchange, exchange.join())
    foreign = Key(key.api_key, others.sign)
    assert door.knock(exchange, foreign.headers(door.message)) == "SIGNATURE_WRONG"
    unknown = Key("ak_00000000000000000000000000000000", key.sign)
    assert door.knock(exchange, unknown.headers(door.message)) == "UNAUTHENTICATED"
    for strange in ("'; DROP TABLE api_keys", "x" * 200, "a"):
        assert door.knock(exchange, Key(strange, key.sign).headers(door.message)) == "UNAUTHENTICATED"


def test_what_is_signed_for_one_door_opens_no_other(exchange: Exchange, key: Key, door: Door) -> None:
    for other in EVERY:
        if other is not door:
            assert door.knock(exchange, key.headers(other.message)) == "SIGNATURE_WRONG"


def test_what_is_moved_from_the_path_into_the_body_fits_no_other_request(
    exchange: Exchange, user: User, key: Key
) -> None:
    """The signed bytes are the same: a cancel of one order must not become one of all."""
    mine = place(exchange, user, limit("BUY", "1000.00", "0.1"))["order_id"]

    def signed(text: str) -> dict[str, str]:
        return key.headers(lambda timestamp: timestamp + text)

    for method, path, moved in (
        ("DELETE", "/api/v1/orders", f"/{mine}"),
        ("DELETE", "/api/v1/orders", "?symbol=BTC-USD"),
        ("GET", "/api/v1/orders", f"/{mine}"),
    ):
        given = signed(method + path + moved)
        answer = httpx.request(
            method, exchange.base_url + path, content=moved, headers=given, trust_env=False
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "MALFORMED")
    path = f"/api/v1/orders/{mine}"
    shown = httpx.get(exchange.base_url + path, headers=signed(f"GET{path}"), trust_env=False).json()
    assert shown["status"] in ("ACCEPTED", "OPEN")


@pytest.mark.parametrize("off_ms", [-5_500, -3_600_000, 1_500, 60_000])
def test_outside_the_window(exchange: Exchange, key: Key, door: Door, off_ms: int) -> None:
    given = key.headers(door.message, time.time_ns() // 1_000_000 + off_ms)
    assert door.knock(exchange, given) == "TIMESTAMP_OUTSIDE_WINDOW"


@pytest.mark.parametrize("text", ["", "soon", "1e12", "-1"])
def test_no_timestamp_at_all(exchange: Exchange, key: Key, door: Door, text: str) -> None:
    given = key.headers(door.message) | {"x-timestamp": text}
    assert door.knock(exchange, given) == "TIMESTAMP_OUTSIDE_WINDOW"


def test_permissions_are_for_what_they_say(exchange: Exchange, user: User) -> None:
    reader = make_key(exchange, user, permissions=READ)
    trader = make_key(exchange, user, permissions=TRADE)
    nothing = make_key(exchange, user, permissions=WITHDRAW)
    for door in EVERY:
        for key, opens in ((reader, door in READING), (trader, door in TRADING), (nothing, False)):
            expected = "" if opens else "PERMISSION_MISSING"
            assert door.knock(exchange, key.headers(door.message)) == expected, (door.name, key)


def test_a_key_may_be_bound_to_addresses(exchange: Exchange, user: User, door: Door) -> None:
    here = make_key(exchange, user, networks=["127.0.0.0/30", "::1"])
    elsewhere = make_key(exchange, user, networks=["203.0.113.0/24"])
    assert door.knock(exchange, here.headers(door.message)) == ""
    assert door.knock(exchange, elsewhere.headers(door.message)) == "ADDRESS_NOT_ALLOWED"


def test_it_is_the_clients_address_that_counts(exchange: Exchange, user: User) -> None:
    """Behind the splice, too, where market-data sees the gateway's."""
    key = make_key(exchange, user, networks=["127.0.0.2"])
    door = WebSocket()
    assert door.knock(exchange, key.headers(door.message)) == "ADDRESS_NOT_ALLOWED"
    other = socket.create_connection(("127.0.0.1", exchange.ports.gateway), source_address=("127.0.0.2", 0))
    with connect(exchange.ws_url, sock=other, proxy=None) as mine:
        mine.send(json.dumps({"op": "auth"} | said(key.headers(door.message))))
        assert json.loads(mine.recv(10))["op"] == "authenticated"
    path = "/api/v1/accounts"
    with httpx.Client(
        base_url=exchange.base_url,
        transport=httpx.HTTPTransport(local_address="127.0.0.2"),
        trust_env=False,
    ) as client:
        given = key.headers(lambda timestamp: f"{timestamp}GET{path}")
        assert client.get(path, headers=given).status_code == 200


def felt(look: Callable[[], str], code: str) -> float:
    """How long until it hears the code; until then it must hear nothing else but ""."""
    began_s = time.monotonic()
    until(look, lambda heard: heard != "")
    assert look() == code
    return time.monotonic() - began_s


def test_a_revocation_is_felt_everywhere_in_time(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    for door in EVERY:  # Kept where anything is kept.
        assert door.knock(exchange, key.headers(door.message)) == ""
    with open_socket(exchange) as connection:
        mine = Socket(connection)
        mine.say(op="auth", **said(key.headers(WebSocket().message)))
        mine.say(op="subscribe", channels=["orders", "trades:BTC-USD"])
        mine.wait_channel("orders", "snapshot")
        revoke(exchange, key)
        began_s = time.monotonic()
        lost = mine.wait(lambda one: one.get("op") == "unsubscribed")
        assert lost["channels"] == ["orders"]
        assert mine.seen[-2]["error"]["code"] == "UNAUTHENTICATED"
        for door in EVERY:
            felt(lambda door=door: door.knock(exchange, key.headers(door.message)), "UNAUTHENTICATED")  # type: ignore[misc]
        assert time.monotonic() - began_s < FELT_S + SLACK_S
        order = place(exchange, user, limit("BUY", "1000", "0.01"))
        mine.say(op="ping", id="after it")
        mine.wait(lambda one: one.get("op") == "pong")
        assert order["order_id"] not in str(mine.seen)


def test_a_key_ends_by_itself(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user, expires_at=datetime.now(UTC) + timedelta(seconds=1.0))
    with open_socket(exchange) as connection:
        mine = Socket(connection)
        mine.say(op="auth", **said(key.headers(WebSocket().message)))
        mine.wait(lambda one: one.get("op") == "authenticated")
        mine.wait(lambda one: one.get("op") == "error" and one["error"]["code"] == "UNAUTHENTICATED")
    for door in EVERY:
        assert door.knock(exchange, key.headers(door.message)) == "UNAUTHENTICATED"


def test_a_stream_ends_with_its_key(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    given = tuple(key.headers(lambda at: f"{at}GRPC/exchange.v1.Orders/SubmitStream").items())
    revoked_s: list[float] = []

    def messages() -> Iterator[pb.SubmitStreamRequest]:
        yield pb.SubmitStreamRequest(orders=[GRPC_ORDER])
        revoke(exchange, key)
        revoked_s.append(time.monotonic())
        while True:
            yield pb.SubmitStreamRequest(orders=[GRPC_ORDER])
            time.sleep(0.05)

    with grpc.insecure_channel(exchange.orders_address) as channel:
        answers = orders_pb2_grpc.OrdersStub(channel).SubmitStream(messages(), metadata=given)
        with pytest.raises(grpc.RpcError) as ended:
            assert all(answer.results[0].HasField("accepted") for answer in answers)
    assert code_of(ended.value) == "UNAUTHENTICATED"
    assert time.monotonic() - revoked_s[0] < FELT_S + SLACK_S


def test_join_gives_a_key_that_works(exchange: Exchange) -> None:
    user = exchange.join()
    key = Key(str(user.answer["api_key"]), HmacKey(str(user.answer["api_secret"]).encode()).sign)
    for door in EVERY:
        assert door.knock(exchange, key.headers(door.message)) == ""
        assert door.knock(exchange, {"authorization": f"Bearer {user.token}"}) == ""


def test_the_readmes_example_signs(exchange: Exchange) -> None:
    user = exchange.join()
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    [source] = [block.split("```")[0] for block in blocks if "X-Signature" in block]
    names = {"API_KEY": user.answer["api_key"], "API_SECRET": user.answer["api_secret"]}
    exec(source.replace("http://localhost:8100", exchange.base_url), names)  # Our own text.
    get: Callable[[str], bytes] = names["get"]  # type: ignore[assignment]
    assert json.loads(get("/api/v1/orders?status=OPEN")) == {"orders": [], "cursor": None}


def test_signed_orders_are_the_signers(exchange: Exchange, user: User, key: Key) -> None:
    other = exchange.join()
    theirs = place(exchange, other, limit("BUY", "1000", "0.01"))
    path = f"/api/v1/orders/{theirs['order_id']}"
    for method in ("GET", "DELETE"):
        given = key.headers(lambda timestamp, method=method: f"{timestamp}{method}{path}")  # type: ignore[misc]
        response = exchange.http.request(method, path, headers=given)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "ORDER_NOT_FOUND")
    assert exchange.http.get(path, headers=other.headers).json()["status"] in ("ACCEPTED", "OPEN")
    assert user.user_id != other.user_id
