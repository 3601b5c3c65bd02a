"""`python -m daemons.matching`: the composition root.

Each instance follows all partitions, leads some of them and stands by for the others. A drain ends the
leaderships, whose leases are released at once, and then closes what they used.
"""

from functools import partial

import anyio
import grpc
import grpc.aio

from common import core, db
from common.config import BadSetting, Settings
from common.health import Health, serve_health
from common.kafka import Producer, producer
from common.lease import Lease, PostgresLeases
from common.partitions import share_partitions
from common.rpc import grpc_channel
from common.stops import MATCHING
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.tls import Role, internal_tls
from daemons.matching.replica import Replica
from daemons.matching.surroundings import Stuck, Surroundings
from daemons.matching.watch import Watch
from exchange.v1 import internal_pb2, internal_pb2_grpc

CALL_S = 2.0
REPORT_EVERY_S = 0.1

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    for name in ("postgres_url", "kafka_bootstrap"):
        if not getattr(settings, name):
            raise BadSetting(f"EXCHANGE_{name.upper()} is empty; a daemon that runs alone needs it")
    tls = internal_tls(settings, Role.MATCHING)
    log.info("engine", form="compiled" if core.COMPILED else "pure")
    health = Health()
    async with (
        producer(settings) as kafka,
        grpc_channel(settings.orders_internal_address, tls) as channel,
        db.pool(settings.postgres_url, name=f"matching {settings.name}", max_size=4) as pool,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        anyio.create_task_group() as working,
    ):
        await working.start(serve_health, health, settings.host, settings.health_port)
        around = _surroundings(settings, pool, kafka, channel, health)
        replicas = {partition: Replica(partition, around) for partition in range(settings.partitions)}
        for replica in replicas.values():
            working.start_soon(replica.run)
        working.start_soon(Watch(pool, replicas).run)
        working.start_soon(_report_ready, replicas, health)

        async def lead(lease: Lease) -> None:
            await replicas[lease.partition].lead(lease)

        working.start_soon(
            partial(
                share_partitions,
                leases,
                MATCHING,
                range(settings.partitions),
                lead,
                lease_s=settings.lease_s,
                renew_s=settings.lease_renew_s,
                ready=lambda: all(replica.ready for replica in replicas.values()),
            )
        )
        calm_collector()
        await life.stopped()
        working.cancel_scope.cancel()


def _surroundings(
    settings: Settings, pool: db.Pool, kafka: Producer, channel: grpc.aio.Channel, health: Health
) -> Surroundings:
    orders = internal_pb2_grpc.OrderInternalStub(channel)

    async def ask_rewind(number: int, reason: str) -> None:
        request = internal_pb2.RewindRequest(partition=number, reason=reason)
        try:
            await orders.Rewind(request, timeout=CALL_S)
        except grpc.RpcError as error:
            # The next batch shows the gap again, and the relay itself sees a watermark that stands.
            log.warning("rewind not asked for", partition=number, error=str(error))

    def report(number: int, reason: str) -> None:
        health.set(f"partition {number}", not reason, reason, needed=False)

    async def report_stop(lease: Lease, stuck: Stuck) -> bool:
        """True when order-service has written it, or has heard of a later leader."""
        request = internal_pb2.ReportStopRequest(
            partition=lease.partition,
            service=MATCHING,
            token=lease.token,
            reason=stuck.reason,
            topic=stuck.topic,
            offset=stuck.record.offset if stuck.record else 0,
            record=stuck.record.value if stuck.record else b"",
            sequence=stuck.sequence or 0,
        )
        try:
            await orders.ReportStop(request, timeout=CALL_S)
        except grpc.RpcError as error:
            log.warning("stop not reported", partition=lease.partition, error=str(error))
            return False
        return True

    return Surroundings(settings, pool, kafka, ask_rewind, report, report_stop)


async def _report_ready(replicas: dict[int, Replica], health: Health) -> None:
    """Ready means that it could lead every partition at once."""
    while True:
        ready = sum(replica.ready for replica in replicas.values())
        health.set("books", ready == len(replicas), f"{ready} of {len(replicas)} partitions followed")
        await anyio.sleep(REPORT_EVERY_S)


if __name__ == "__main__":
    run("matching", main)
