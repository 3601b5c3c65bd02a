"""`python -m daemons.order_service`: the composition root.

Blocks, from the outside in: servers that it talks to, upkeep and relays, settling, TX1, the ports. A
drain leaves them from the inside: the ports refuse, what was accepted is committed and relayed, the
leases are released, the sessions close.
"""

from functools import partial

import anyio
import psycopg

from common import db
from common.config import BadSetting, Settings
from common.health import Health, serve_health
from common.kafka import producer
from common.lease import PostgresLeases
from common.partitions import share_partitions
from common.rpc import serve_grpc
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.topics import topics
from daemons.order_service import relay, upkeep
from daemons.order_service.committer import Committer
from daemons.order_service.identity import Tokens, by_daemon, by_token
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.relay import Relays
from daemons.order_service.service import InternalService, OrdersService, register
from daemons.order_service.settlement import SETTLEMENT
from daemons.order_service.settler import Settler
from daemons.order_service.testers import Testers

ORDERS, INTERNAL = "exchange.v1.Orders", "exchange.v1.OrderInternal"
PROBE_S = 1.0

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    health = Health()
    health.set("postgres", False, "not reached yet")
    partitions = range(settings.partitions)
    relays = Relays(settings.partitions)
    markets = Markets()
    async with (
        db.pool(settings.postgres_url, name="order-service", max_size=8) as pool,
        producer(settings) as kafka,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        anyio.create_task_group() as working,
    ):
        await working.start(serve_health, health, settings.host, settings.health_port)
        await _wait_for_schema(markets, pool)
        settler = Settler(settings, kafka, markets, relays, partial(_report_partition, health))
        for partition in partitions:
            working.start_soon(
                relay.relay_partition,
                settings.postgres_url,
                kafka,
                topics(settings).orders,
                relays,
                partition,
            )
        for task in (markets.keep_fresh, upkeep.reap, upkeep.archive):
            working.start_soon(task, pool)
        working.start_soon(relay.watch_progress, pool, relays)
        working.start_soon(_probe, pool, health)
        working.start_soon(
            partial(
                share_partitions,
                leases,
                SETTLEMENT,
                partitions,
                settler.lead,
                lease_s=settings.lease_s,
                renew_s=settings.lease_renew_s,
            )
        )
        await _serve(settings, life, markets, relays, pool, health)
        working.cancel_scope.cancel()


async def _serve(
    settings: Settings, life: Lifecycle, markets: Markets, relays: Relays, pool: db.Pool, health: Health
) -> None:
    """TX1 and the ports; returns when everything that was accepted is committed."""
    committer = Committer(
        settings.postgres_url,
        markets,
        relays,
        batch_requests=settings.batch_orders,
        queue_requests=settings.queue_orders,
    )
    tokens = Tokens(pool, cache_s=settings.token_cache_s)
    queries = Queries(pool, markets)
    internal = InternalService(committer, tokens, Testers(pool, local_mode=settings.local_mode), pool, relays)
    public_orders = OrdersService(by_token(tokens), committer, queries, markets)
    daemon_orders = OrdersService(by_daemon, committer, queries, markets)
    async with anyio.create_task_group() as committing:
        await committing.start(committer.run)
        async with (
            serve_grpc(
                partial(register, orders=daemon_orders, extra=internal),
                f"{settings.host}:{settings.orders_internal_port}",
                service_names=[ORDERS, INTERNAL],
                drain_s=settings.drain_s / 2,
                ready=lambda: health.ready,
            ),
            serve_grpc(
                partial(register, orders=public_orders),
                f"{settings.host}:{settings.orders_port}",
                service_names=[ORDERS],
                drain_s=settings.drain_s / 2,
                ready=lambda: health.ready,
            ),
        ):
            calm_collector()
            await life.stopped()
        committer.finish()


async def _wait_for_schema(markets: Markets, pool: db.Pool) -> None:
    """The daemons may start before `exchange migrate` has run, and before PostgreSQL is up."""
    said = False
    while True:
        try:
            return await markets.load(pool)
        except Exception as error:
            if not (db.is_transient(error) or isinstance(error, psycopg.errors.UndefinedTable)):
                raise
            if not said:
                log.warning("waiting for PostgreSQL and its schema", error=str(error))
            said = True
            await anyio.sleep(0.2)


async def _probe(pool: db.Pool, health: Health) -> None:
    """Ready means that PostgreSQL would take an order."""
    while True:
        try:
            async with pool.connection() as connection:
                await connection.execute("SELECT 1")
            health.set("postgres", True)
        except Exception as error:
            if not db.is_transient(error):
                raise
            health.set("postgres", False, str(error))
        await anyio.sleep(PROBE_S)


def _report_partition(health: Health, partition: int, reason: str) -> None:
    # One partition that stopped must not take orders away from the others.
    health.set(f"settlement {partition}", not reason, reason, needed=False)


def _check(settings: Settings) -> None:
    for name in ("postgres_url", "kafka_bootstrap"):
        if not getattr(settings, name):
            raise BadSetting(
                f"EXCHANGE_{name.upper()} is empty; `exchange up` sets it, a daemon alone needs it"
            )


async def checked_main(settings: Settings, life: Lifecycle) -> None:
    _check(settings)
    await main(settings, life)


if __name__ == "__main__":
    run("order-service", checked_main)
