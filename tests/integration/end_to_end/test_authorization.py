"""Who may do what, at every door: each route, each gRPC method and each private channel, by each identity.

The rows are those of the code itself (the routes' declaration, the descriptors, the channels). One that is
not in the tables here fails: whoever adds a door says in this file who may pass.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from websockets.sync.client import ClientConnection, connect

from common import admin, sessions
from common.db import connect as connect_database
from common.identity.permissions import ALL, READ, TRADE
from common.socket_messages import PRIVATE
from exchange import v1
from exchange.v1 import orders_pb2 as pb
from gateway.app import every_route
from gateway.declaration import Route
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import get, limit, place, until

PUBLIC = "anybody"

HTTP = {
    "GET /": PUBLIC,
    "GET /docs": PUBLIC,
    "GET /static/<path:name>": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /api/v1/openapi.json": PUBLIC,
    "GET /api/v1/asyncapi.json": PUBLIC,
    "GET /api/v1/markets": PUBLIC,
    "GET /api/v1/orderbook": PUBLIC,
    "GET /api/v1/trades": PUBLIC,
    "GET /api/v1/klines": PUBLIC,
    "GET /api/v1/ticker": PUBLIC,
    "GET /api/v1/time": PUBLIC,
    "GET /api/v1/orders": "read",
    "GET /api/v1/orders/<order_id>": "read",
    "GET /api/v1/fills": "read",
    "GET /api/v1/accounts": "read",
    "POST /api/v1/orders": "trade",
    "POST /api/v1/orders/batch": "trade",
    "DELETE /api/v1/orders": "trade",
    "DELETE /api/v1/orders/<order_id>": "trade",
    "POST /api/v1/session": "any",
    "DELETE /api/v1/session": "any",
    "POST /api/v1/test/join": PUBLIC,
    "POST /api/v1/test/recharge": "trade",
}

# Not on the public ports at all; what a certificate opens is in tests/integration/end_to_end/test_tls.py.
INTERNAL = "daemons"
OPERATORS = "operators"  # Nor on the port between the daemons: it has one of its own.
GRPC = {
    "Orders.ListMarkets": PUBLIC,
    "Orders.Submit": "trade",
    "Orders.SubmitBatch": "trade",
    "Orders.SubmitStream": "trade",
    "Orders.Cancel": "trade",
    "Orders.CancelAll": "trade",
    "Orders.GetOrder": "read",
    "Orders.ListOrders": "read",
    "Orders.ListFills": "read",
    "Orders.ListAccounts": "read",
    "Orders.Await": "read",
    "MarketData.GetBook": PUBLIC,
    "MarketData.ListTrades": PUBLIC,
    "MarketData.ListCandles": PUBLIC,
    "MarketData.GetTicker": PUBLIC,
    "MarketData.StreamBook": PUBLIC,
    "MarketData.StreamTrades": PUBLIC,
    "OrderInternal.Authenticate": INTERNAL,
    "OrderInternal.FindKey": INTERNAL,
    "OrderInternal.OpenSession": INTERNAL,
    "OrderInternal.CloseSession": INTERNAL,
    "OrderInternal.Place": INTERNAL,
    "OrderInternal.Join": INTERNAL,
    "OrderInternal.Recharge": INTERNAL,
    "OrderInternal.Rewind": INTERNAL,
    "OrderInternal.ReportStop": INTERNAL,
    "OrderInternal.ClaimKeys": INTERNAL,
    "OrderInternal.SettleKeys": INTERNAL,
    "MarketDataInternal.Tell": INTERNAL,
    "Admin.CreateUser": OPERATORS,
    "Admin.ListUsers": OPERATORS,
    "Admin.CreateToken": OPERATORS,
    "Admin.RevokeUser": OPERATORS,
    "Admin.CreateKey": OPERATORS,
    "Admin.ListKeys": OPERATORS,
    "Admin.RevokeKey": OPERATORS,
    "Admin.CreateMarket": OPERATORS,
    "Admin.DescribeMarkets": OPERATORS,
    "Admin.SetFees": OPERATORS,
    "Admin.SetStatus": OPERATORS,
    "Admin.Deposit": OPERATORS,
    "Admin.RequestWithdrawal": OPERATORS,
    "Admin.CompleteWithdrawal": OPERATORS,
    "Admin.CancelWithdrawal": OPERATORS,
    "Admin.ListWithdrawals": OPERATORS,
    "Admin.ListAuditLog": OPERATORS,
}
ENOUGH = {"read": READ, "trade": TRADE}
WS = {"orders": "read", "balances": "read", "fills": "read"}

ROUTES = {f"{route.method} {route.path}": route for route in every_route()}
METHODS: dict[str, MethodDescriptor] = {
    f"{service.name}.{method.name}": method
    for proto in Path(v1.__path__[0]).glob("*_pb2.py")
    for service in import_module(f"exchange.v1.{proto.stem}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

# What is sent as credentials, and is nobody's.
WRONG = {
    "none": {},
    "unknown": {"authorization": "Bearer " + "A" * 43},
    "empty": {"authorization": "Bearer"},
    "another scheme": {"authorization": "Basic YWxpY2U6"},
    "a user's number": {"x-user-id": "1"},
}


@dataclass(frozen=True)
class Cast:
    """Two users, one of whom has a live order, and tokens that were good once."""

    owner: User
    order_id: str
    stranger: User
    ended: dict[str, dict[str, str]]  # Credentials by what became of them.
    lacking: dict[str, dict[str, str]]  # The owner's, by the one permission that they do not have.


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def cast(exchange: Exchange) -> Iterator[Cast]:
    owner, stranger, revoked = exchange.join(), exchange.join(), exchange.join()
    order_id = str(place(exchange, owner, limit("BUY", "1000", "0.01"))["order_id"])
    anyio.run(partial(_revoke, exchange, int(revoked.user_id)))
    ended = {"revoked": bearer(revoked.token), "expired": anyio.run(partial(_expired, exchange, owner))}
    lacking = {needs: anyio.run(partial(_lacking, exchange, owner, bit)) for needs, bit in ENOUGH.items()}
    for credentials in ended.values():
        until(partial(_status, exchange, credentials), lambda status: status == 401)
    yield Cast(owner, order_id, stranger, ended, lacking)
    assert get(exchange, f"/api/v1/orders/{order_id}", owner)["status"] == "OPEN"  # Whatever others did.


async def _revoke(exchange: Exchange, user_id: int) -> None:
    async with connect_database(exchange.settings.postgres_url, "test") as connection:
        assert await admin.revoke_tokens(connection, user_id)


async def _expired(exchange: Exchange, user: User) -> dict[str, str]:
    """A session that was over as soon as it was opened."""
    async with connect_database(exchange.settings.postgres_url, "test") as connection:
        session = await sessions.open_session(connection, str(user.answer["api_key"]), READ, 0.0)
    return bearer(session.token)


async def _lacking(exchange: Exchange, user: User, bit: int) -> dict[str, str]:
    async with connect_database(exchange.settings.postgres_url, "test") as connection:
        return bearer(await admin.create_token(connection, int(user.user_id), ALL & ~bit))


def _status(exchange: Exchange, credentials: dict[str, str]) -> int:
    return exchange.http.get("/api/v1/accounts", headers=credentials).status_code


def nobodys(cast: Cast) -> dict[str, dict[str, str]]:
    return WRONG | cast.ended


# ---- the tables --------------------------------------------------------------------------------


def test_every_door_is_in_the_tables_and_asks_for_what_they_say() -> None:
    assert {name: route.permission or PUBLIC for name, route in ROUTES.items()} == HTTP
    assert METHODS.keys() == GRPC.keys()
    assert set(PRIVATE) == WS.keys()


# ---- HTTP --------------------------------------------------------------------------------------


def ask(exchange: Exchange, route: Route, cast: Cast, credentials: dict[str, str]) -> tuple[int, str]:
    """The status and the code of an answer; the request is about the owner's order where it names one."""
    path = route.path.replace("<order_id>", cast.order_id).replace("<path:name>", "page.js")
    query = "?symbol=BTC-USD" if any(parameter.required for parameter in route.query) else ""
    body = b"" if route.body is None or route.example is None else json.dumps(route.example).encode()
    response = exchange.http.request(route.method, path + query, content=body, headers=credentials)
    is_error = response.status_code >= 400 and response.headers["content-type"] == "application/json"
    return response.status_code, response.json()["error"]["code"] if is_error else ""


@pytest.mark.parametrize("name", HTTP)
def test_http(exchange: Exchange, cast: Cast, name: str) -> None:
    route = ROUTES[name]
    if HTTP[name] == PUBLIC:
        for credentials in nobodys(cast).values():
            assert ask(exchange, route, cast, credentials)[0] in (200, 201)
        return
    for who, credentials in nobodys(cast).items():
        assert ask(exchange, route, cast, credentials) == (401, "UNAUTHENTICATED"), who
    status, code = ask(exchange, route, cast, cast.stranger.headers)
    if HTTP[name] == "any":  # Of sessions: a token opens none, and this one is none.
        assert (status, code) in ((401, "UNAUTHENTICATED"), (422, "NOT_A_SESSION"))
    elif "<order_id>" in route.path:
        assert (status, code) == (404, "ORDER_NOT_FOUND")
    else:
        assert status in (200, 202), code


@pytest.mark.parametrize("name", [name for name, needs in HTTP.items() if needs in ENOUGH])
def test_http_with_every_permission_but_the_one(exchange: Exchange, cast: Cast, name: str) -> None:
    answered = ask(exchange, ROUTES[name], cast, cast.lacking[HTTP[name]])
    assert answered == (403, "PERMISSION_MISSING")


def test_what_is_listed_is_ones_own(exchange: Exchange, cast: Cast) -> None:
    for path in ("/api/v1/orders", "/api/v1/fills", "/api/v1/accounts"):
        assert f'"order_id": "{cast.order_id}"' not in json.dumps(get(exchange, path, cast.stranger))
    owned = get(exchange, "/api/v1/orders", cast.owner)["orders"]
    assert [order["order_id"] for order in owned] == [cast.order_id]


def test_a_user_cannot_be_named(exchange: Exchange, cast: Cast) -> None:
    order = limit("BUY", "1000", "0.01") | {"user_id": cast.owner.user_id}
    assert place(exchange, cast.stranger, order, 400)["error"]["details"].keys() == {"user_id"}
    named = exchange.http.get(f"/api/v1/orders?user_id={cast.owner.user_id}", headers=cast.stranger.headers)
    assert named.status_code == 400


# ---- gRPC --------------------------------------------------------------------------------------


def call(address: str, method: MethodDescriptor, credentials: dict[str, str], body: bytes = b"") -> str:
    """The name of the status of a call with these bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = tuple(credentials.items())
    opened: Any = grpc.insecure_channel(address)  # Its methods are generic, and take bytes as they are.
    with opened as channel:
        try:
            if method.client_streaming:
                next(iter(channel.stream_stream(path)(iter([body]), metadata=metadata, timeout=10)), None)
            elif method.server_streaming:
                next(iter(channel.unary_stream(path)(body, metadata=metadata, timeout=10)), None)
            else:
                channel.unary_unary(path)(body, metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            ended: Any = error
            return str(ended.code().name)
    return "OK"


@pytest.mark.parametrize("name", GRPC)
def test_grpc(exchange: Exchange, cast: Cast, name: str) -> None:
    method = METHODS[name]
    public_ports = [exchange.orders_address, exchange.market_data_address]
    if GRPC[name] in (INTERNAL, OPERATORS):
        closed = public_ports + ([exchange.orders_internal_address] if GRPC[name] == OPERATORS else [])
        for address in closed:
            assert call(address, method, bearer(cast.owner.token)) == "UNIMPLEMENTED"
        return
    address = public_ports[name.startswith("MarketData")]
    refused = {"UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"}
    for who, credentials in nobodys(cast).items():
        answered = call(address, method, credentials)
        if GRPC[name] == PUBLIC:
            assert answered not in refused, who
        else:
            assert answered == "UNAUTHENTICATED", who
    assert call(address, method, bearer(cast.stranger.token)) not in refused
    if name.startswith("Orders.") and GRPC[name] != PUBLIC:  # The port between the daemons takes no token.
        internal = exchange.orders_internal_address
        assert call(internal, method, bearer(cast.stranger.token)) == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", [name for name, needs in GRPC.items() if needs in ENOUGH])
def test_grpc_with_every_permission_but_the_one(exchange: Exchange, cast: Cast, name: str) -> None:
    credentials = cast.lacking[GRPC[name]]
    assert call(exchange.orders_address, METHODS[name], credentials) == "PERMISSION_DENIED"


@pytest.mark.parametrize("name", ["Orders.GetOrder", "Orders.Cancel"])
def test_another_ones_order_over_grpc(exchange: Exchange, cast: Cast, name: str) -> None:
    body = pb.GetOrderRequest(order_id=int(cast.order_id)).SerializeToString()  # Cancel's is alike.
    assert call(exchange.orders_address, METHODS[name], bearer(cast.stranger.token), body) == "NOT_FOUND"


# ---- WebSocket ---------------------------------------------------------------------------------


def tell(socket: ClientConnection, **message: object) -> Any:
    socket.send(json.dumps(message))
    return json.loads(socket.recv(10))


@pytest.mark.parametrize("channel", WS)
def test_channels(exchange: Exchange, cast: Cast, channel: str) -> None:
    for who, credentials in nobodys(cast).items():
        token = credentials.get("authorization", "").removeprefix("Bearer ")
        with connect(exchange.ws_url, proxy=None) as socket:
            assert tell(socket, op="auth", token=token)["op"] == "error", who
            refused = tell(socket, op="subscribe", channels=[channel])
            assert refused["error"]["code"] == "UNAUTHENTICATED", who
            assert tell(socket, op="ping")["op"] == "pong"


@pytest.mark.parametrize("channel", WS)
def test_channels_without_the_permission(exchange: Exchange, cast: Cast, channel: str) -> None:
    token = cast.lacking[WS[channel]]["authorization"].removeprefix("Bearer ")
    with connect(exchange.ws_url, proxy=None) as socket:
        assert tell(socket, op="auth", token=token)["error"]["code"] == "PERMISSION_MISSING"
        assert tell(socket, op="subscribe", channels=[channel])["error"]["code"] == "UNAUTHENTICATED"


def test_updates_are_their_owners_alone(exchange: Exchange, cast: Cast) -> None:
    """What happens to one user's orders and money reaches no one else's connection."""
    with connect(exchange.ws_url, proxy=None) as socket:
        assert tell(socket, op="auth", token=cast.stranger.token)["user_id"] == cast.stranger.user_id
        socket.send(json.dumps({"op": "subscribe", "channels": [*WS]}))
        seen: list[str] = []
        wait_for(socket, seen, lambda frame: frame.get("channel") == "fills")
        other = exchange.join()
        place(exchange, other, limit("SELL", "50000", "0.02", client_order_id="theirs"))
        place(exchange, cast.owner, limit("BUY", "50000", "0.02", client_order_id="owners"))
        mine = place(exchange, cast.stranger, limit("BUY", "900", "0.01", client_order_id="mine"))
        wait_for(socket, seen, lambda frame: names(frame, str(mine["order_id"])))
    told = "".join(seen)
    assert "theirs" not in told
    assert "owners" not in told
    assert cast.order_id not in {frame_order(json.loads(text)) for text in seen}


def wait_for(socket: ClientConnection, seen: list[str], good: Callable[[Any], bool]) -> None:
    while not seen or not good(json.loads(seen[-1])):
        seen.append(str(socket.recv(10)))


def names(frame: Any, order_id: str) -> bool:
    return bool(frame.get("channel") == "orders" and frame_order(frame) == order_id)


def frame_order(frame: Any) -> str:
    data = frame.get("data")
    return str(data.get("order_id", "")) if isinstance(data, dict) else ""
