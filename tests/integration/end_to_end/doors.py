"""The three ways in (HTTP, gRPC, WebSocket) as one shape: knock with a signature or a token, hear a code."""

import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import anyio
import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.sync.client import connect

from common import keys
from common.db import Connection
from common.db import connect as connect_db
from common.identity.master_keys import vault_of
from common.identity.signing import HmacKey
from common.rpc_errors import ERROR_KEY
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User

T = TypeVar("T")
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Key:
    """An API key and what its owner signs with."""

    api_key: str
    sign: Sign

    def headers(self, message: Callable[[str], str], at_ms: int | None = None) -> dict[str, str]:
        """The three values over `message(timestamp)`."""
        timestamp = str(time.time_ns() // 1_000_000 if at_ms is None else at_ms)
        signature = self.sign(message(timestamp).encode()).hex()
        return {"x-api-key": self.api_key, "x-timestamp": timestamp, "x-signature": signature}


def in_database(exchange: Exchange, act: Callable[[Connection], Awaitable[T]]) -> T:
    async def run() -> T:
        async with connect_db(exchange.settings.postgres_url, "test") as connection:
            return await act(connection)

    return anyio.run(run)


def make_key(exchange: Exchange, user: User, **options: object) -> Key:
    vault = vault_of(exchange.settings)
    made = in_database(
        exchange,
        lambda connection: keys.create_key(connection, vault, int(user.user_id), **options),  # type: ignore[arg-type]
    )
    assert made.secret is not None
    return Key(made.api_key, HmacKey(made.secret.encode()).sign)


def make_ed25519_key(exchange: Exchange, user: User) -> Key:
    pair = Ed25519PrivateKey.generate()
    public = pair.public_key().public_bytes_raw()
    made = in_database(
        exchange,
        lambda connection: keys.create_key(
            connection, vault_of(exchange.settings), int(user.user_id), public_key=public
        ),
    )
    assert made.secret is None
    return Key(made.api_key, pair.sign)


def revoke(exchange: Exchange, key: Key) -> None:
    assert in_database(exchange, partial(keys.revoke_key, api_key=key.api_key))


class Door(Protocol):
    """`knock` gives "" when it is opened, else the code of the error."""

    name: str

    def message(self, timestamp: str) -> str: ...
    def knock(self, exchange: Exchange, credentials: dict[str, str]) -> str: ...


class Http:
    """A request with this method, path and body."""

    def __init__(self, method: str, path: str, body: str = "") -> None:
        self.name = f"HTTP {method}"
        self._request = method, path, body

    def message(self, timestamp: str) -> str:
        return timestamp + "".join(self._request)

    def knock(self, exchange: Exchange, credentials: dict[str, str]) -> str:
        method, path, body = self._request
        response = exchange.http.request(method, path, content=body, headers=credentials)
        return "" if response.status_code < 400 else str(response.json()["error"]["code"])


class Grpc:
    """A call of this method of Orders."""

    def __init__(self, method: str, request: object) -> None:
        self.name = f"gRPC {method}"
        self._method, self._call_request = method, request

    def message(self, timestamp: str) -> str:
        return f"{timestamp}GRPC/exchange.v1.Orders/{self._method}"

    def knock(self, exchange: Exchange, credentials: dict[str, str]) -> str:
        with grpc.insecure_channel(exchange.orders_address) as channel:
            call = getattr(orders_pb2_grpc.OrdersStub(channel), self._method)
            try:
                call(self._call_request, metadata=tuple(credentials.items()))
            except grpc.RpcError as error:
                return code_of(error)
        return ""


def code_of(error: grpc.RpcError) -> str:
    assert isinstance(error, grpc.Call)
    trailing: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    raw = dict(trailing)[ERROR_KEY]
    assert isinstance(raw, bytes)
    return ty.Error.FromString(raw).code


class WebSocket:
    """An `auth` message on a new connection through the gateway."""

    name = "WebSocket"

    def message(self, timestamp: str) -> str:
        return timestamp + "GET/ws"

    def knock(self, exchange: Exchange, credentials: dict[str, str]) -> str:
        with connect(exchange.ws_url, proxy=None) as socket:
            socket.send(json.dumps({"op": "auth"} | said(credentials)))
            answer = json.loads(socket.recv(10))
        return "" if answer["op"] == "authenticated" else str(answer["error"]["code"])


def said(credentials: dict[str, str]) -> dict[str, str]:
    """The same credentials as an `auth` message has them."""
    if "authorization" in credentials:
        return {"token": credentials["authorization"].removeprefix("Bearer ")}
    return {name.removeprefix("x-").replace("-", "_"): value for name, value in credentials.items()}


ORDER = '{"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "1000.00", "quantity": "0.01"}'
GRPC_ORDER = pb.NewOrder(
    symbol="BTC-USD", side=ty.SIDE_BUY, type=ty.ORDER_TYPE_LIMIT, price_ticks=100_000, qty_lots=1_000
)
READING: list[Door] = [
    Http("GET", "/api/v1/orders?status=OPEN&limit=3"),
    Grpc("ListAccounts", pb.ListAccountsRequest()),
    WebSocket(),
]
TRADING: list[Door] = [
    Http("POST", "/api/v1/orders", ORDER),
    Http("DELETE", "/api/v1/orders?symbol=BTC-USD"),
    Grpc("Submit", pb.SubmitRequest(order=GRPC_ORDER)),
    Grpc("CancelAll", pb.CancelAllRequest()),
]
EVERY = READING + TRADING
