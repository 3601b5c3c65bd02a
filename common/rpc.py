"""gRPC servers and channels as blocks. For daemons on asyncio, which grpc.aio needs; the gateway, on
Trio, takes CHANNEL_OPTIONS and `rpc_errors` from here and brings its own channel.

With `common.tls` both sides show certificates, and a server may say who calls what (`common.peers`).
Without, the ports are loopback. Users are no matter of this: services read them from the metadata.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import anyio
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.config import BadSetting, addresses
from common.peers import Peers
from common.rpc_calls import Calls
from common.rpc_errors import error_from_proto, error_to_proto, from_rpc_error
from common.telemetry import get_logger
from common.tls import Role, Tls

__all__ = [
    "CHANNEL_OPTIONS",
    "SERVER_OPTIONS",
    "error_from_proto",
    "error_to_proto",
    "from_rpc_error",
    "grpc_channel",
    "serve_grpc",
    "target",
    "trusting",
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_CALLS = 20_000
LATE = 0.8  # Part of the time for a drain after which those who hold it up are named.
ABORT_S = 1.0  # What handlers get to unwind once their calls are cancelled.

_COMMON_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
# All instances of a service share the work, and one that is away is left out at once.
_BALANCED = '{"loadBalancingConfig": [{"round_robin": {}}]}'
CHANNEL_OPTIONS = (
    *_COMMON_OPTIONS,
    ("grpc.service_config", _BALANCED),
    # A hung instance still has its connections: only its silence tells.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),  # The one that counts: a minute, unless said otherwise.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A restarted server is found again within half a second.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 2_000),  # In spite of its name: how long one attempt may take.
    ("grpc.use_local_subchannel_pool", 1),  # One channel's backoff is not another's.
    ("grpc.enable_http_proxy", 0),
)
SERVER_OPTIONS = (
    *_COMMON_OPTIONS,
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.so_reuseport", 0),  # Two servers on one port are a mistake that should be heard.
    ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)

log = get_logger(__name__)


@asynccontextmanager
async def serve_grpc(
    register: Callable[[grpc.aio.Server], None],
    address: str,
    *,
    service_names: Sequence[str],
    drain_s: float,
    ready: Callable[[], bool] = lambda: True,
    credentials: grpc.ServerCredentials | None = None,
    peers: Peers | None = None,
) -> AsyncIterator[int]:
    """Serve while the body runs; yields the bound port. `address` is host:port, port 0 for any.

    `credentials`: of a port with TLS; `peers`: who may call what there, by the callers' certificates.
    The standard health service answers NOT_SERVING while `ready` says no; calls are taken all the same.
    When the body ends, new calls are refused and those under way get `drain_s`; when it fails or is
    cancelled, they are cancelled. Raises OSError when the port is taken.
    """
    calls = Calls(peers)
    server = grpc.aio.server(interceptors=[calls], options=SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    register(server)
    standing = _Standing(ready)
    health_pb2_grpc.add_HealthServicer_to_server(standing, server)
    names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    await server.start()
    for name in names:
        await standing.set(name, health_pb2.HealthCheckResponse.SERVING)
    log.info("serving", address=address, port=port)
    try:
        yield port
        await standing.enter_graceful_shutdown()
        calls.drain()
        async with anyio.create_task_group() as group:
            group.start_soon(_tell_who_is_late, calls, drain_s * LATE)
            await server.stop(drain_s)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop(None)  # Nothing is left to cancel after a drain.
            with anyio.move_on_after(ABORT_S):
                await calls.ended()


async def _tell_who_is_late(calls: Calls, after_s: float) -> None:
    await anyio.sleep(after_s)
    log.warning(
        "calls that do not end", methods={name: count for name, count in calls.at_work.items() if count}
    )


class _Standing(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The standard health service, whose Check also asks whether the process is ready for work."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._ready = ready

    async def Check(  # noqa: N802  # the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: object
    ) -> health_pb2.HealthCheckResponse:
        answer: health_pb2.HealthCheckResponse = await super().Check(request, context)
        if answer.status == health_pb2.HealthCheckResponse.SERVING and not self._ready():
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)
        return answer


def target(value: str) -> str:
    """What gRPC calls the addresses of a setting: one host:port, or several IP:port.

    Raises BadSetting for several host names, which gRPC cannot take; one name with several records it can.
    """
    several = addresses(value)
    if len(several) == 1:
        return several[0]
    try:
        versions = {ip_address(one.rpartition(":")[0].strip("[]")).version for one in several}
    except ValueError as error:
        raise BadSetting(f"{value!r}: {error}; several addresses are IP:port,IP:port") from None
    if len(versions) != 1:
        raise BadSetting(f"{value!r}: give at least one address, and all of one kind of IP")
    return f"ipv{versions.pop()}:{','.join(several)}"


def trusting(role: Role) -> tuple[tuple[str, int | str], ...]:
    """CHANNEL_OPTIONS for servers of this role, whatever their addresses are."""
    return (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", role.value))


@asynccontextmanager
async def grpc_channel(
    address: str, tls: Tls | None = None, role: Role = Role.ORDER_SERVICE
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel over the instances at `address` (see `target`); under TLS they must be of this role.

    It connects when first used and reconnects by itself; calls go to those that live.
    """
    if tls is None:
        channel = grpc.aio.insecure_channel(target(address), options=CHANNEL_OPTIONS)
    else:
        channel = grpc.aio.secure_channel(target(address), tls.channel_credentials(), options=trusting(role))
    try:
        yield channel
    finally:
        with anyio.CancelScope(shield=True):
            await channel.close()
