"""`python -m daemons.order_service`: the composition root.

Blocks, from the outside in: servers that it talks to, upkeep and relays, settling, TX1, the ports. A
drain leaves them from the inside: the ports refuse, what was accepted is committed and relayed, the
leases are released, the sessions close.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import psycopg

from common import db
from common.config import BadSetting, Settings
from common.health import Health, serve_health
from common.identity.kept import Kept
from common.identity.master_keys import vault_of
from common.identity.redis_claims import shared_replays
from common.identity.signed import SignedRequests
from common.identity.vault import Vault
from common.identity.window import Window
from common.kafka import producer
from common.lease import PostgresLeases
from common.partitions import share_partitions
from common.rpc import serve_grpc
from common.stops import SETTLEMENT
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.tls import Role, Tls, internal_tls, public_credentials
from common.topics import topics
from daemons.order_service import admin_service, relay, upkeep
from daemons.order_service.backlog import Backlog
from daemons.order_service.callers import INTERNAL_CALLERS
from daemons.order_service.committer import Committer
from daemons.order_service.identity import PublicDoor, by_daemon
from daemons.order_service.key_desk import KeyDesk
from daemons.order_service.look_ups import Directory
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.relay import Relays
from daemons.order_service.service import InternalService, OrdersService, register
from daemons.order_service.settled import SettledOrders, Watermarks
from daemons.order_service.settler import Settler
from daemons.order_service.teller import teller
from daemons.order_service.testers import Testers

ORDERS, INTERNAL = "exchange.v1.Orders", "exchange.v1.OrderInternal"
PROBE_S = 1.0

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    tls = internal_tls(settings, Role.ORDER_SERVICE)
    vault = vault_of(settings)
    health = Health()
    health.set("postgres", False, "not reached yet")
    partitions = range(settings.partitions)
    relays = Relays(settings.partitions)
    markets = Markets()
    backlog = Backlog(settings.backlog_orders)
    async with (
        db.pool(settings.postgres_url, name="order-service", max_size=8) as pool,
        producer(settings) as kafka,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        teller(settings.market_data_internal_address, tls) as telling,
        anyio.create_task_group() as working,
    ):
        await working.start(serve_health, health, settings.host, settings.health_port)
        await _wait_for_schema(markets, pool)
        watermarks = Watermarks()
        settler = Settler(
            settings, kafka, markets, relays, telling, partial(_report_partition, health), watermarks.reached
        )
        for partition in partitions:
            working.start_soon(
                relay.relay_partition,
                settings.postgres_url,
                kafka,
                topics(settings).orders,
                relays,
                partition,
            )
        for task in (markets.keep_fresh, upkeep.reap, upkeep.archive, upkeep.forget_keys, watermarks.watch):
            working.start_soon(task, pool)
        working.start_soon(relay.watch_progress, pool, relays, backlog)
        working.start_soon(upkeep.keep_topics, settings, health)
        working.start_soon(_probe, pool, health)
        working.start_soon(settler.run)
        working.start_soon(telling.run)
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
        await _serve(settings, tls, vault, life, markets, relays, backlog, watermarks, pool, health)
        working.cancel_scope.cancel()


async def _serve(
    settings: Settings,
    tls: Tls | None,
    vault: Vault,
    life: Lifecycle,
    markets: Markets,
    relays: Relays,
    backlog: Backlog,
    watermarks: Watermarks,
    pool: db.Pool,
    health: Health,
) -> None:
    """TX1 and the ports; returns when everything that was accepted is committed."""
    committer = Committer(
        settings.postgres_url,
        markets,
        relays,
        batch_requests=settings.batch_orders,
        queue_requests=settings.queue_orders,
        backlog=backlog,
    )
    queries = Queries(pool, markets)
    settled = SettledOrders(watermarks, markets, queries, most=settings.settle_waiters)
    directory = Directory(pool, vault)
    key_desk = KeyDesk(directory, pool, session_s=settings.session_s)
    testers = Testers(pool, vault, local_mode=settings.local_mode)
    internal = InternalService(committer, key_desk, testers, pool, relays)
    daemon_orders = OrdersService(by_daemon, committer, queries, markets, settled, claimed_keys=True)
    async with _public_door(settings, directory) as door, anyio.create_task_group() as committing:
        public_orders = OrdersService(door, committer, queries, markets, settled)
        await committing.start(committer.run)
        async with (
            serve_grpc(
                partial(register, orders=daemon_orders, extra=internal),
                f"{settings.host}:{settings.orders_internal_port}",
                service_names=[ORDERS, INTERNAL],
                drain_s=settings.drain_s / 2,
                ready=lambda: health.ready,
                credentials=tls.server_credentials() if tls else None,
                peers=INTERNAL_CALLERS if tls else None,
            ),
            serve_grpc(
                partial(register, orders=public_orders),
                f"{settings.host}:{settings.orders_port}",
                service_names=[ORDERS],
                drain_s=settings.drain_s / 2,
                ready=lambda: health.ready,
                credentials=public_credentials(settings),
            ),
            serve_grpc(
                partial(admin_service.register, service=admin_service.AdminService(pool, vault)),
                f"{settings.host}:{settings.admin_port}",
                service_names=[admin_service.SERVICE],
                drain_s=settings.drain_s / 2,
                ready=lambda: health.ready,
                credentials=tls.server_credentials() if tls else None,
                peers=admin_service.CALLERS if tls else None,
            ),
        ):
            calm_collector()
            await life.stopped()
            settled.end()
        committer.finish()


@asynccontextmanager
async def _public_door(settings: Settings, directory: Directory) -> AsyncIterator[PublicDoor]:
    window = Window(settings.receive_window_ms)
    tokens = Kept(directory.token, settings.token_cache_s)
    keys = Kept(directory.signing_key, settings.token_cache_s)
    async with shared_replays(settings.redis_url, settings.topic_prefix, window) as replays:
        yield PublicDoor(tokens, SignedRequests(keys, window, replays))


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
