"""An exchange outside local mode: every connection between its daemons over mutual TLS, and the operator's.

Who has no certificate, one of another authority, or one of a role that has no business at a port, is
refused there.
"""

import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from common.rpc import trusting
from common.tls import Role, Tls
from daemons.local.certs import certificate_settings, make_certificates
from daemons.local.fleet import KINDS
from daemons.local.servers import Servers
from exchange.v1 import admin_pb2 as ad
from exchange.v1 import admin_pb2_grpc, internal_pb2_grpc, market_data_pb2_grpc, orders_pb2_grpc
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User, running_exchange
from tests.integration.end_to_end.shop import Socket, balances, limit, open_socket, place, settled, until

DENIED, NOT_IN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE


def _folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    folder = tmp_path_factory.mktemp(name) / "certs"
    make_certificates(folder, [], "alice", print)
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _folder(tmp_path_factory, "ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _folder(tmp_path_factory, "theirs")


@pytest.fixture(scope="module")
def exchange(servers: Servers, ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    settings: dict[str, Any] = {
        "local_mode": False,
        "tls_dir": str(ours),
        "public_tls_cert": str(ours / "order-service.pem"),
        "public_tls_key": str(ours / "order-service.key"),
        "matchings": 1,
    }
    with running_exchange(servers, tmp_path_factory.mktemp("exchange"), **settings) as running:
        yield running


@pytest.fixture(scope="module")
def operator(exchange: Exchange, ours: Path) -> Iterator[admin_pb2_grpc.AdminStub]:
    [port] = exchange.ports.of("admin_port")
    with _channel(f"127.0.0.1:{port}", _tls(ours, Role.OPERATOR)) as channel:
        yield admin_pb2_grpc.AdminStub(channel)


@pytest.fixture(scope="module")
def users(operator: admin_pb2_grpc.AdminStub) -> list[User]:
    return [_user(operator, name) for name in ("maker", "taker")]


def _user(operator: admin_pb2_grpc.AdminStub, name: str) -> User:
    user_id = operator.CreateUser(ad.CreateUserRequest(name=name)).user_id
    for asset in ("USD", "BTC"):
        operator.Deposit(
            ad.DepositRequest(user_id=user_id, asset=asset, amount="100000", reference=f"{name} {asset}")
        )
    return User(str(user_id), operator.CreateToken(ad.CreateTokenRequest(user_id=user_id)).token, {})


def _tls(folder: Path, role: Role) -> Tls:
    paths = {name: Path(str(path)) for name, path in certificate_settings(folder, role).items()}
    return Tls(paths["tls_cert"], paths["tls_key"], paths["tls_ca"])


def _channel(address: str, tls: Tls | None, role: Role = Role.ORDER_SERVICE) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, tls.channel_credentials(), options=trusting(role))


def test_orders_pass_through_all_of_it(exchange: Exchange, users: list[User]) -> None:
    maker, taker = users
    with open_socket(exchange) as connection:
        listening = Socket(connection)
        listening.say(op="auth", token=maker.token)
        listening.say(op="subscribe", channels=["orders", "trades:BTC-USD"])
        listening.wait_channel("orders", "snapshot")
        resting = place(exchange, maker, limit("SELL", "50000.00", "0.2"))
        placed = place(exchange, taker, limit("BUY", "50000.00", "0.2"))
        assert settled(exchange, taker, placed["order_id"])["status"] == "FILLED"
        listening.wait(
            lambda one: (
                one.get("channel") == "orders"
                and one["type"] == "update"
                and one["data"]["order_id"] == resting["order_id"]
                and one["data"]["status"] == "FILLED"
            )
        )
    books = exchange.http.get("/api/v1/orderbook?symbol=BTC-USD")
    assert (books.status_code, books.json()["asks"]) == (200, [])


def test_there_is_no_test_money(exchange: Exchange, users: list[User]) -> None:
    assert exchange.http.post("/api/v1/test/join").status_code == 404
    assert exchange.http.post("/api/v1/test/recharge", headers=users[0].headers).status_code == 404


def test_the_public_ports_show_their_own_certificate(exchange: Exchange, ours: Path) -> None:
    public = grpc.ssl_channel_credentials((ours / "ca.pem").read_bytes())
    with grpc.secure_channel(exchange.market_data_address, public) as channel:
        stub = market_data_pb2_grpc.MarketDataStub(channel)
        assert stub.GetBook(md.GetBookRequest(symbol="BTC-USD"), timeout=5).symbol == "BTC-USD"
    with grpc.secure_channel(exchange.orders_address, public) as channel:
        orders = orders_pb2_grpc.OrdersStub(channel)
        with pytest.raises(grpc.RpcError) as nobody:
            orders.ListOrders(pb.ListOrdersRequest(), timeout=5, metadata=(("x-user-id", "1001"),))
    assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(exchange.orders_address) as channel, pytest.raises(grpc.RpcError) as plain:
        orders_pb2_grpc.OrdersStub(channel).ListMarkets(pb.ListMarketsRequest(), timeout=5)
    assert plain.value.code() is NOT_IN


def test_strangers_reach_no_internal_port(exchange: Exchange, ours: Path, theirs: Path) -> None:
    """Without a certificate, with one of another authority, and with that one but our authority's name."""
    gateway, foreign = _tls(ours, Role.GATEWAY), _tls(theirs, Role.GATEWAY)
    mixed = Tls(foreign.certificate, foreign.key, gateway.authority)
    internal_ports = [
        *((port, Role.ORDER_SERVICE) for port in exchange.ports.of("orders_internal_port")),
        *((port, Role.MARKET_DATA) for port in exchange.ports.of("market_data_internal_port")),
    ]
    for port, role in internal_ports:
        for stranger in (None, foreign, mixed):
            with _channel(f"127.0.0.1:{port}", stranger, role) as channel:
                orders = orders_pb2_grpc.OrdersStub(channel)
                with pytest.raises(grpc.RpcError) as refused:
                    orders.ListOrders(pb.ListOrdersRequest(), timeout=5, metadata=(("x-user-id", "1001"),))
            assert refused.value.code() is NOT_IN


def test_a_user_id_is_taken_from_those_who_may_name_one(
    exchange: Exchange, users: list[User], ours: Path
) -> None:
    named = (("x-user-id", users[0].user_id),)
    address = exchange.orders_internal_address
    with _channel(address, _tls(ours, Role.GATEWAY)) as channel:
        orders = orders_pb2_grpc.OrdersStub(channel)
        assert len(orders.ListOrders(pb.ListOrdersRequest(), timeout=5, metadata=named).orders) == 1
    with _channel(address, _tls(ours, Role.MARKET_DATA)) as channel:
        orders = orders_pb2_grpc.OrdersStub(channel)
        assert len(orders.ListOrders(pb.ListOrdersRequest(), timeout=5, metadata=named).orders) == 1
        with pytest.raises(grpc.RpcError) as refused:
            orders.CancelAll(pb.CancelAllRequest(), timeout=5, metadata=named)
        assert refused.value.code() is DENIED
    for role in (Role.MATCHING, Role.OPERATOR, Role.ORDER_SERVICE):
        with _channel(address, _tls(ours, role)) as channel:
            orders = orders_pb2_grpc.OrdersStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                orders.ListOrders(pb.ListOrdersRequest(), timeout=5, metadata=named)
            assert refused.value.code() is DENIED, role
    with _channel(address, _tls(ours, Role.GATEWAY)) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            internal_pb2_grpc.OrderInternalStub(channel).Rewind(internal.RewindRequest(), timeout=5)
        assert refused.value.code() is DENIED
    [port] = exchange.ports.of("market_data_internal_port")
    with _channel(f"127.0.0.1:{port}", _tls(ours, Role.GATEWAY), Role.MARKET_DATA) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            internal_pb2_grpc.MarketDataInternalStub(channel).Tell(internal.TellRequest(), timeout=5)
        assert refused.value.code() is DENIED


HELLO = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _lets_in(port: int, context: ssl.SSLContext | None) -> bool:
    """Whether market-data's WebSocket port upgrades the connection."""
    with socket.create_connection(("127.0.0.1", port), 10) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="market-data") if context else plain as spoken:
                spoken.sendall(HELLO)
                return spoken.recv(1_000).startswith(b"HTTP/1.1 101")
        except (ssl.SSLError, ConnectionError):
            return False


def test_only_gateways_splice(exchange: Exchange, ours: Path, theirs: Path) -> None:
    [port] = exchange.ports.of("market_data_ws_port")
    foreign = _tls(theirs, Role.GATEWAY)
    mixed = Tls(foreign.certificate, foreign.key, ours / "ca.pem")
    assert _lets_in(port, _tls(ours, Role.GATEWAY).client_context())
    for refused in (
        None,
        ssl.create_default_context(cafile=str(ours / "ca.pem")),
        mixed.client_context(),
        _tls(ours, Role.MATCHING).client_context(),
    ):
        assert not _lets_in(port, refused)
    counted = exchange.metrics("market-data")
    assert counted['exchange_market_data_handshakes_refused_total{reason="role"}'] == 1


def test_every_port_is_on_loopback(exchange: Exchange) -> None:
    """Nothing but EXCHANGE_HOST says where the daemons listen; local mode refuses another one."""
    for name, daemon in exchange.daemons.items():
        listening = [
            one.laddr.ip.removeprefix("::ffff:")
            for one in psutil.Process(daemon.pid).net_connections("inet")
            if one.status == psutil.CONN_LISTEN
        ]
        assert listening, name
        assert set(listening) == {"127.0.0.1"}, name


def test_an_operator_acts_under_the_name_in_the_certificate(
    exchange: Exchange, operator: admin_pb2_grpc.AdminStub
) -> None:
    user = _user(operator, "carol")
    user_id = int(user.user_id)
    asked = ad.RequestWithdrawalRequest(
        user_id=user_id, asset="USD", amount="40000", address="there", reference="mine"
    )
    made = operator.RequestWithdrawal(asked).withdrawal
    assert (made.status, made.atoms) == (ad.WITHDRAWAL_STATUS_PENDING, 40_000 * 10**8)
    assert balances(exchange, user)["USD"] == ("60000", "40000")
    assert operator.RequestWithdrawal(asked) == ad.RequestWithdrawalResponse(withdrawal=made, repeated=True)
    waiting = operator.ListWithdrawals(
        ad.ListWithdrawalsRequest(user_id=user_id, status=ad.WITHDRAWAL_STATUS_PENDING)
    )
    assert list(waiting.withdrawals) == [made]
    paid = ad.CompleteWithdrawalRequest(withdrawal_id=made.withdrawal_id, transaction="tx 1")
    assert operator.CompleteWithdrawal(paid).withdrawal.closing == "tx 1"
    assert balances(exchange, user)["USD"] == ("60000", "0")
    with pytest.raises(grpc.RpcError) as refused:
        operator.CancelWithdrawal(
            ad.CancelWithdrawalRequest(withdrawal_id=made.withdrawal_id, reason="too late")
        )
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    rows = operator.ListAuditLog(ad.ListAuditLogRequest(limit=4)).entries
    assert {(row.actor, row.via) for row in rows} == {("alice", "grpc")}
    assert [(row.act, row.outcome) for row in rows] == [
        ("withdrawal cancel", "CONFLICT"),
        ("withdrawal complete", "done"),
        ("withdrawal request", "repeated"),
        ("withdrawal request", "done"),
    ]
    assert json.loads(rows[1].arguments)["transaction"] == "tx 1"
    assert user.token not in str(operator.ListAuditLog(ad.ListAuditLogRequest()))


def test_an_operator_looks_after_users_and_markets(
    exchange: Exchange, operator: admin_pb2_grpc.AdminStub
) -> None:
    user = _user(operator, "dave")
    [listed] = operator.ListUsers(ad.ListUsersRequest(after_user_id=int(user.user_id) - 1, limit=1)).users
    assert (listed.name, listed.tokens) == ("dave", 1)
    own = operator.CreateKey(ad.CreateKeyRequest(user_id=int(user.user_id), permissions=["READ"]))
    ended = operator.RevokeUser(ad.RevokeUserRequest(user_id=int(user.user_id)))
    assert (ended.tokens, ended.keys) == (1, 1)
    [key] = operator.ListKeys(ad.ListKeysRequest(user_id=int(user.user_id))).keys
    assert key.api_key == own.api_key
    assert key.revoked_us > 0
    halted = operator.SetStatus(ad.SetStatusRequest(symbol="ETH-USD", status=ty.MARKET_STATUS_HALTED))
    assert halted.sequence > 0
    assert operator.SetFees(ad.SetFeesRequest(symbol="ETH-USD", taker_fee_bps=7)).sequence > halted.sequence

    def described() -> ty.Market:
        markets = operator.DescribeMarkets(ad.DescribeMarketsRequest()).markets
        return next(market for market in markets if market.symbol == "ETH-USD")

    market = until(described, lambda one: one.taker_fee_bps == 7)
    assert market.status == ty.MARKET_STATUS_HALTED
    assert market.maker_fee_bps == 10, "what is not named stays"
    made = operator.CreateMarket(ad.CreateMarketRequest(symbol="SOL-USD", tick="0.01", lot="0.1")).market
    assert (made.base.symbol, made.base.scale) == ("SOL", 8)
    for refusal, code in (
        (lambda: operator.SetStatus(ad.SetStatusRequest(symbol="ETH-USD")), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: operator.ListUsers(ad.ListUsersRequest(limit=1_001)), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: operator.RevokeKey(ad.RevokeKeyRequest(api_key="none")), grpc.StatusCode.NOT_FOUND),
        (lambda: operator.CreateUser(ad.CreateUserRequest()), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: operator.Deposit(ad.DepositRequest(user_id=-1)), grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            refusal()
        assert refused.value.code() is code


def test_only_operators_reach_the_admin_port(exchange: Exchange, ours: Path, theirs: Path) -> None:
    [port] = exchange.ports.of("admin_port")
    foreign = _tls(theirs, Role.OPERATOR)
    mixed = Tls(foreign.certificate, foreign.key, ours / "ca.pem")
    callers = [(tls, NOT_IN) for tls in (None, foreign, mixed)]
    callers += [(_tls(ours, role), DENIED) for role in Role if role is not Role.OPERATOR]
    for tls, code in callers:
        with _channel(f"127.0.0.1:{port}", tls) as channel, pytest.raises(grpc.RpcError) as refused:
            admin_pb2_grpc.AdminStub(channel).ListUsers(ad.ListUsersRequest(), timeout=5)
        assert refused.value.code() is code
    for address in (exchange.orders_address, exchange.orders_internal_address):
        with _channel(address, _tls(ours, Role.OPERATOR)) as own, pytest.raises(grpc.RpcError) as elsewhere:
            admin_pb2_grpc.AdminStub(own).ListUsers(ad.ListUsersRequest(), timeout=5)
        assert elsewhere.value.code() in (grpc.StatusCode.UNIMPLEMENTED, DENIED)


def _start(module: str, *, fd: int = -1, **settings: object) -> "subprocess.Popen[str]":
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EXCHANGE_")}
    own = {f"EXCHANGE_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env=plain | own,
        pass_fds=(fd,) if fd >= 0 else (),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_daemon_that_would_be_open_does_not_start() -> None:
    """No certificates and no local mode; and local mode on a socket that others can reach."""
    away: dict[str, Any] = {"postgres_url": "postgresql://127.0.0.1:1/x", "kafka_bootstrap": "127.0.0.1:1"}
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        fd = everywhere.fileno()
        started = {
            **{_start(kind.module, **away): "EXCHANGE_TLS_CERT, " for kind in KINDS},
            _start("gateway", fd=fd, local_mode=True, listen_fd=fd): "EXCHANGE_LISTEN_FD is a socket on ",
        }
        for process, beginning in started.items():
            _, said = process.communicate(timeout=60)
            assert process.returncode == 2, said
            assert said.startswith(beginning)
            assert said.count("\n") == 1
