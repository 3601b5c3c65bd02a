"""Certificates: what stops the start, who is let in, and whom a client believes. Real handshakes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import grpc
import grpc.aio
import pytest

from common.config import BadSetting, Settings
from common.core.errors import Forbidden, Unauthenticated, Unavailable
from common.peers import Peers, peer_of
from common.rpc import from_rpc_error, grpc_channel, serve_grpc
from common.tls import Role, Tls, internal_tls, public_credentials
from daemons.local.certs import certificate_settings, make_certificates
from daemons.local.process import LocalError
from tests.harness.servers import bare_settings

pytestmark = pytest.mark.anyio

ECHO, OTHER = "exchange.test.Echo", "exchange.test.Other"
RULES = Peers({Role.GATEWAY: (f"/{ECHO}/",), Role.MARKET_DATA: (f"/{ECHO}/Say",)})


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: object) -> AsyncIterator[None]:
    """One loop for the module: see test_rpc."""
    yield
    await anyio.sleep(0.2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs") / "ours"
    make_certificates(folder, ["exchange.example"], "alice", print)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another authority, with the same names."""
    folder = tmp_path_factory.mktemp("certs") / "theirs"
    make_certificates(folder, [], "mallory", print)
    return folder


def settings_of(folder: Path, role: Role, **changes: object) -> Settings:
    return bare_settings(**(certificate_settings(folder, role) | changes))


def tls_of(folder: Path, role: Role) -> Tls:
    tls = internal_tls(settings_of(folder, role), role)
    assert tls is not None
    return tls


# ---- the files -------------------------------------------------------------------------------------


def test_every_role_gets_what_it_starts_with(made: Path) -> None:
    for role in Role:
        assert tls_of(made, role).certificate == made / f"{role}.pem"


def test_keys_are_for_their_owner_alone(made: Path) -> None:
    keys = list(made.glob("*.key"))
    assert len(keys) == len(Role) + 1
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert made.stat().st_mode & 0o777 == 0o700


def test_nothing_is_overwritten(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.iterdir()}
    with pytest.raises(LocalError, match="exists already"):
        make_certificates(made, [], "bob", print)
    assert {path: path.read_bytes() for path in made.iterdir()} == before


def test_local_mode_needs_none_and_everything_else_does() -> None:
    assert internal_tls(bare_settings(local_mode=True), Role.GATEWAY) is None
    with pytest.raises(BadSetting, match=r"EXCHANGE_TLS_CERT.*EXCHANGE_LOCAL_MODE.*exchange certs"):
        internal_tls(bare_settings(local_mode=False), Role.GATEWAY)


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_ca"])
@pytest.mark.parametrize("local_mode", [False, True])
def test_all_or_none(made: Path, name: str, local_mode: bool) -> None:
    settings = settings_of(made, Role.GATEWAY, **{name: "", "local_mode": local_mode})
    with pytest.raises(BadSetting, match=f"EXCHANGE_{name.upper()} must be set too"):
        internal_tls(settings, Role.GATEWAY)


@pytest.mark.parametrize("name", ["tls_cert", "tls_key", "tls_ca"])
@pytest.mark.parametrize("broken", ["missing", "empty", "noise"])
def test_a_file_that_is_of_no_use_is_named(made: Path, tmp_path: Path, name: str, broken: str) -> None:
    path = tmp_path / "file.pem"
    if broken != "missing":
        path.write_bytes(b"" if broken == "empty" else b"-----BEGIN nothing-----\n\xff\n")
    with pytest.raises(BadSetting) as caught:
        internal_tls(settings_of(made, Role.GATEWAY, **{name: str(path)}), Role.GATEWAY)
    assert caught.value.message.startswith(f"EXCHANGE_{name.upper()}: {path}")
    assert "\n" not in caught.value.message


def test_files_that_do_not_go_together(made: Path, foreign: Path) -> None:
    for changes, sentence in (
        ({"tls_key": made / "matching.key"}, "EXCHANGE_TLS_KEY: .* is not the key of"),
        ({"tls_ca": foreign / "ca.pem"}, "EXCHANGE_TLS_CERT: the authority in EXCHANGE_TLS_CA .* not signed"),
        (certificate_settings(made, Role.MATCHING), "EXCHANGE_TLS_CERT: .* is not for gateway"),
    ):
        chosen = {name: str(value) for name, value in changes.items()}
        with pytest.raises(BadSetting, match=sentence):
            internal_tls(settings_of(made, Role.GATEWAY, **chosen), Role.GATEWAY)


def test_the_public_ports_have_a_certificate_of_their_own(made: Path, foreign: Path) -> None:
    assert public_credentials(bare_settings()) is None
    certificate, key = str(foreign / "gateway.pem"), str(foreign / "gateway.key")
    assert public_credentials(bare_settings(public_tls_cert=certificate, public_tls_key=key)) is not None
    with pytest.raises(BadSetting, match="EXCHANGE_PUBLIC_TLS_CERT and EXCHANGE_PUBLIC_TLS_KEY go together"):
        public_credentials(bare_settings(public_tls_cert=certificate))
    with pytest.raises(BadSetting, match="EXCHANGE_PUBLIC_TLS_KEY"):
        public_credentials(
            bare_settings(public_tls_cert=certificate, public_tls_key=str(made / "gateway.key"))
        )


# ---- handshakes ------------------------------------------------------------------------------------


def _echo(server: grpc.aio.Server) -> None:
    async def say(request: bytes, context: Any) -> bytes:
        peer = peer_of(context)
        return f"{peer.name} {sorted(peer.roles)}".encode() if peer else b"nobody"

    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Sing": grpc.unary_unary_rpc_method_handler(say),
    }
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, methods) for name in (ECHO, OTHER))
    )


async def _ask(
    port: int, tls: Tls | None, method: str = f"/{ECHO}/Say", role: Role = Role.ORDER_SERVICE
) -> str:
    async with grpc_channel(f"127.0.0.1:{port}", tls, role) as channel:
        call: Any = channel.unary_unary(method)
        try:
            with anyio.fail_after(10):
                return bytes(await call(b"")).decode()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error


async def test_roles_may_call_what_they_are_named_for(made: Path) -> None:
    server = tls_of(made, Role.ORDER_SERVICE).server_credentials()
    async with serve_grpc(
        _echo, "127.0.0.1:0", service_names=[], drain_s=0.3, credentials=server, peers=RULES
    ) as port:
        assert await _ask(port, tls_of(made, Role.GATEWAY)) == "gateway ['gateway']"
        assert await _ask(port, tls_of(made, Role.MARKET_DATA)) == "market-data ['market-data']"
        for role, method in (
            (Role.MARKET_DATA, f"/{ECHO}/Sing"),
            (Role.GATEWAY, f"/{OTHER}/Say"),
            (Role.MATCHING, f"/{ECHO}/Say"),
            (Role.OPERATOR, f"/{ECHO}/Say"),
        ):
            with pytest.raises(Forbidden, match=f"{role} may not"):
                await _ask(port, tls_of(made, role), method)


async def test_the_holder_of_a_certificate_is_named(made: Path) -> None:
    peers = Peers({Role.OPERATOR: (f"/{ECHO}/",)})
    server = tls_of(made, Role.ORDER_SERVICE).server_credentials()
    async with serve_grpc(
        _echo, "127.0.0.1:0", service_names=[], drain_s=0.3, credentials=server, peers=peers
    ) as port:
        assert await _ask(port, tls_of(made, Role.OPERATOR)) == "alice ['operator']"


async def test_strangers_do_not_get_as_far_as_a_call(made: Path, foreign: Path) -> None:
    server = tls_of(made, Role.ORDER_SERVICE).server_credentials()
    async with serve_grpc(
        _echo, "127.0.0.1:0", service_names=[], drain_s=0.3, credentials=server, peers=RULES
    ) as port:
        ours, theirs = tls_of(made, Role.GATEWAY), tls_of(foreign, Role.GATEWAY)
        mixed = Tls(theirs.certificate, theirs.key, ours.authority)  # Believes us; we do not believe it.
        for stranger in (None, theirs, mixed):
            with pytest.raises(Unavailable):
                await _ask(port, stranger)
        credentials = grpc.ssl_channel_credentials(ours.authority.read_bytes())
        options = [("grpc.ssl_target_name_override", "order-service")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
            call: Any = channel.unary_unary(f"/{ECHO}/Say")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "no certificate, no connection"


async def test_a_client_believes_the_role_that_it_means_alone(made: Path) -> None:
    server = tls_of(made, Role.MARKET_DATA).server_credentials()
    async with serve_grpc(
        _echo, "127.0.0.1:0", service_names=[], drain_s=0.3, credentials=server, peers=RULES
    ) as port:
        gateway = tls_of(made, Role.GATEWAY)
        assert await _ask(port, gateway, role=Role.MARKET_DATA)
        with pytest.raises(Unavailable):
            await _ask(port, gateway, role=Role.ORDER_SERVICE)


async def test_several_addresses_are_believed_by_role_too(made: Path) -> None:
    server = tls_of(made, Role.ORDER_SERVICE).server_credentials()
    async with (
        serve_grpc(
            _echo, "127.0.0.1:0", service_names=[], drain_s=0.3, credentials=server, peers=RULES
        ) as port,
        grpc_channel(f"127.0.0.1:{port},127.0.0.1:1", tls_of(made, Role.GATEWAY)) as channel,
    ):
        call: Any = channel.unary_unary(f"/{ECHO}/Say")
        assert await call(b"", timeout=10, wait_for_ready=True)


async def test_without_tls_there_is_nobody_to_let_in() -> None:
    async with serve_grpc(_echo, "127.0.0.1:0", service_names=[], drain_s=0.3, peers=RULES) as port:
        with pytest.raises(Unauthenticated):
            await _ask(port, None)
