"""No secret stands in a log, whatever goes wrong around it: those that were used here are looked for.

The daemons log at DEBUG, and are shown right secrets, wrong ones, and right ones in wrong places.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from websockets.sync.client import connect

from common.identity.signing import HmacKey
from daemons.local.servers import Servers
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.end_to_end.doors import EVERY, Http, Key
from tests.integration.end_to_end.shop import limit

ALMOST = "wrong-but-nearly-right-5d41402abc4b2a76"  # What a user mistyped is nearly a secret.


@pytest.fixture(scope="module")
def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    with running_exchange(servers, tmp_path_factory.mktemp("logs"), log_level="DEBUG") as running:
        yield running


def logs(exchange: Exchange) -> dict[str, str]:
    return {name: daemon.program.log.read_text() for name, daemon in exchange.daemons.items()}


def secrets_of(answer: Mapping[str, object]) -> list[str]:
    return [str(answer[name]) for name in ("token", "api_secret") if answer.get(name)]


def use_http(exchange: Exchange, token: str) -> None:
    """In the right place, in wrong ones, and beside what is refused."""
    good = {"Authorization": f"Bearer {token}"}
    http = exchange.http
    assert http.post("/api/v1/orders", json=limit("BUY", "1000", "0.01"), headers=good).status_code == 202
    assert http.post("/api/v1/orders", content=b"{", headers=good).status_code == 400
    assert http.post("/api/v1/orders", json={"token": token}, headers=good).status_code == 400
    assert http.post("/api/v1/orders", content=token.encode(), headers=good).status_code == 400
    assert http.get(f"/api/v1/accounts?token={token}", headers=good).status_code == 400
    assert http.get(f"/api/v1/{token}", headers=good).status_code == 404
    assert http.get("/api/v1/accounts", headers={"Authorization": f"Basic {token}"}).status_code == 401
    assert http.get("/api/v1/accounts", headers={"Authorization": f"Bearer {ALMOST}"}).status_code == 401


def use_websocket(exchange: Exchange, token: str) -> None:
    with connect(exchange.ws_url, proxy=None) as socket:
        for message in (
            {"op": "auth", "token": ALMOST},
            {"op": "auth", "token": token, "password": token},
            {"op": "subscribe", "channels": [token]},
            {"op": "auth", "token": token},
            {"op": "subscribe", "channels": ["orders"]},
        ):
            socket.send(json.dumps(message))
            socket.recv(10)
        socket.send("{" + token)
        socket.recv(10)


def use_grpc(exchange: Exchange, token: str) -> None:
    with grpc.insecure_channel(exchange.orders_address) as channel:
        for said in (f"Bearer {token}", f"Bearer {ALMOST}", token):
            stub = orders_pb2_grpc.OrdersStub(channel)
            asked = stub.ListAccounts.with_call if said == f"Bearer {token}" else _refused(stub.ListAccounts)
            asked(pb.ListAccountsRequest(), metadata=(("authorization", said),), timeout=10)


def use_signatures(exchange: Exchange, answer: Mapping[str, object]) -> list[str]:
    """Right and wrong ones at every door; gives the token of the session that they opened."""
    key = Key(str(answer["api_key"]), HmacKey(str(answer["api_secret"]).encode()).sign)
    session = Http("POST", "/api/v1/session")
    opened = exchange.http.post("/api/v1/session", headers=key.headers(session.message))
    assert opened.status_code == 201, opened.text
    for door in EVERY:
        right = key.headers(door.message)
        assert door.knock(exchange, right) == ""
        assert door.knock(exchange, right) == "SIGNATURE_REPEATED"
        # What belongs on this side alone, in place of a signature.
        wrong = right | {"x-signature": str(answer["api_secret"]), "x-api-key": key.api_key}
        assert door.knock(exchange, wrong) == "SIGNATURE_WRONG"
    return [str(opened.json()["token"])]


def master_keys(exchange: Exchange) -> list[str]:
    lines = Path(exchange.settings.master_keys_file).read_text().splitlines()
    return [line.partition(":")[2] for line in lines if not line.startswith("#")]


def _refused(method: Any) -> Any:
    def ask(*arguments: Any, **options: Any) -> None:
        with pytest.raises(grpc.RpcError):
            method(*arguments, **options)

    return ask


def test_no_secret_is_logged(exchange: Exchange) -> None:
    secrets = [ALMOST, str(urlsplit(exchange.settings.postgres_url).password)]
    user = exchange.join()
    secrets += secrets_of(user.answer) + use_signatures(exchange, user.answer) + master_keys(exchange)
    use_http(exchange, user.token)
    use_websocket(exchange, user.token)
    use_grpc(exchange, user.token)
    exchange.kill("order-service")  # What happens now is logged; with which words?
    assert exchange.http.get("/api/v1/orders", headers=user.headers).status_code == 503
    exchange.start("order-service")
    exchange.wait_ready()
    assert len(secrets) >= 6
    assert all(len(secret) >= 16 for secret in secrets)
    for name, text in logs(exchange).items():
        assert len(text) > 100, name
        for secret in secrets:
            assert secret not in text, f"{name} logged {secret[:4]}..."
            assert secret.encode().hex() not in text
