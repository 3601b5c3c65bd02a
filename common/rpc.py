"""gRPC servers and channels as blocks. For daemons on asyncio, which grpc.aio needs; the gateway, on
Trio, takes CHANNEL_OPTIONS and `rpc_errors` from here and brings its own channel.

No TLS and no identity here: the ports are loopback or inside a cluster's network policy, and services
read the caller from the metadata.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.rpc_calls import Calls
from common.rpc_errors import error_from_proto, error_to_proto, from_rpc_error
from common.telemetry import get_logger

__all__ = [
    "CHANNEL_OPTIONS",
    "SERVER_OPTIONS",
    "error_from_proto",
    "error_to_proto",
    "from_rpc_error",
    "grpc_channel",
    "serve_grpc",
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_CALLS = 20_000
ABORT_S = 1.0  # What handlers get to unwind once their calls are cancelled.

_COMMON_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
)
CHANNEL_OPTIONS = (
    *_COMMON_OPTIONS,
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
    ("grpc.so_reuseport", 0),  # Two servers on one port are a mistake that should be heard.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
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
) -> AsyncIterator[int]:
    """Serve while the body runs; yields the bound port. `address` is host:port, port 0 for any.

    The standard health service answers NOT_SERVING while `ready` says no; calls are taken all the same.
    When the body ends, new calls are refused and those under way get `drain_s`; when it fails or is
    cancelled, they are cancelled. Raises OSError when the port is taken.
    """
    calls = Calls()
    server = grpc.aio.server(interceptors=[calls], options=SERVER_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    register(server)
    standing = _Standing(ready)
    health_pb2_grpc.add_HealthServicer_to_server(standing, server)
    names = (*service_names, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    try:
        port = server.add_insecure_port(address)
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
        await server.stop(drain_s)
    finally:
        with anyio.CancelScope(shield=True):
            await server.stop(None)  # Nothing is left to cancel after a drain.
            with anyio.move_on_after(ABORT_S):
                await calls.ended()


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


@asynccontextmanager
async def grpc_channel(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to host:port; it connects when first used and reconnects by itself."""
    channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
    try:
        yield channel
    finally:
        with anyio.CancelScope(shield=True):
            await channel.close()
