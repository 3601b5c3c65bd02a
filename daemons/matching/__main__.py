"""`python -m daemons.matching`: the composition root.

Each instance leads some of the partitions and stands by for the others. A drain ends the leaderships,
whose leases are released at once, and then closes what they used.
"""

from functools import partial

import anyio
import grpc
import grpc.aio

from common.config import BadSetting, Settings
from common.health import Health, serve_health
from common.kafka import Producer, producer
from common.lease import PostgresLeases
from common.partitions import share_partitions
from common.rpc import grpc_channel
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from daemons.matching.replica import Replica
from exchange.v1 import internal_pb2, internal_pb2_grpc

MATCHING = "matching"
REWIND_S = 2.0

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    for name in ("postgres_url", "kafka_bootstrap"):
        if not getattr(settings, name):
            raise BadSetting(f"EXCHANGE_{name.upper()} is empty; a daemon that runs alone needs it")
    health = Health()
    async with (
        producer(settings) as kafka,
        grpc_channel(settings.orders_internal_address) as channel,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        anyio.create_task_group() as working,
    ):
        await working.start(serve_health, health, settings.host, settings.health_port)
        replica = _replica(settings, kafka, channel, health)
        working.start_soon(
            partial(
                share_partitions,
                leases,
                MATCHING,
                range(settings.partitions),
                replica.lead,
                lease_s=settings.lease_s,
                renew_s=settings.lease_renew_s,
            )
        )
        health.set("running", True)
        calm_collector()
        await life.stopped()
        working.cancel_scope.cancel()


def _replica(settings: Settings, kafka: Producer, channel: grpc.aio.Channel, health: Health) -> Replica:
    orders = internal_pb2_grpc.OrderInternalStub(channel)

    async def ask_rewind(number: int, reason: str) -> None:
        request = internal_pb2.RewindRequest(partition=number, reason=reason)
        try:
            await orders.Rewind(request, timeout=REWIND_S)
        except grpc.RpcError as error:
            # The next batch shows the gap again, and the relay itself sees a watermark that stands.
            log.warning("rewind not asked for", partition=number, error=str(error))

    def report(number: int, reason: str) -> None:
        health.set(f"partition {number}", not reason, reason, needed=False)

    return Replica(settings, kafka, ask_rewind, report)


if __name__ == "__main__":
    run("matching", main)
