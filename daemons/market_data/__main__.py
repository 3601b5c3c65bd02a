"""The market-data daemon: chooses the adapters, nests the lifetimes, runs until it is told to stop.

resources   order-service's channel, PostgreSQL's sessions
working     markets, Kafka's readers, repair, candles, Redis, balances, identities
serving     gRPC, and inside it the WebSockets: those clients are told to go first
"""

import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from anyio.abc import TaskGroup

from common.config import Settings
from common.db import pool
from common.health import Health, serve_health
from common.lease import PostgresLeases
from common.partitions import share_partitions
from common.rpc import serve_grpc
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.topics import topics
from daemons.market_data import candles
from daemons.market_data.desk import FrontDesk
from daemons.market_data.directory import Directory
from daemons.market_data.events import BACK, Events
from daemons.market_data.follow import Follow, Progress
from daemons.market_data.identities import Identities
from daemons.market_data.markets import Markets
from daemons.market_data.orders_client import OrdersClient, orders_client
from daemons.market_data.private import PrivateDesk
from daemons.market_data.redis_sink import RedisSink
from daemons.market_data.repair import PostgresStore, Repair
from daemons.market_data.service import register
from daemons.market_data.ws import serve_websockets

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    """Run until `life` ends."""
    _allow_connections()
    health = Health()
    async with anyio.create_task_group() as outermost:
        await outermost.start(partial(serve_health, health, settings.host, settings.health_port))
        async with (
            orders_client(settings.orders_internal_address) as orders,
            _working(settings, health, orders) as (markets, desk),
            _serving(settings, markets, desk),
        ):
            health.set("serving", True)
            calm_collector()
            await life.stopped()
            health.set("serving", False, "going down")
        outermost.cancel_scope.cancel()


def _allow_connections() -> None:
    """As many open files as the system lets us: each client is one, and the usual soft limit is 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def _working(
    settings: Settings, health: Health, orders: OrdersClient
) -> AsyncIterator[tuple[Markets, FrontDesk]]:
    """Everything that keeps the views up to date, while the body runs."""
    directory = Directory(orders, health)
    markets = Markets(directory)
    private = PrivateDesk(orders, directory)
    identities = Identities(orders, settings.token_cache_s)
    sink = RedisSink(settings.redis_url, settings.topic_prefix, health)
    writer = candles.CandleWriter(settings.postgres_url, directory.of_partition)
    events = Events(markets, private, writer.wake)
    markets.on_touch = sink.touch
    async with (
        pool(settings.postgres_url, name=f"market-data {settings.name}", max_size=4) as sessions,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        anyio.create_task_group() as group,
    ):
        group.start_soon(directory.run)
        group.start_soon(markets.run)
        group.start_soon(private.run)
        group.start_soon(identities.run)
        group.start_soon(sink.run, markets)
        group.start_soon(Repair(markets, PostgresStore(sessions), health).run)
        _follow(settings, health, events, group)
        group.start_soon(
            partial(
                share_partitions,
                leases,
                candles.SERVICE,
                range(settings.partitions),
                writer.lead,
                lease_s=settings.lease_s,
                renew_s=settings.lease_renew_s,
            )
        )
        yield markets, FrontDesk(markets, private, identities)
        group.cancel_scope.cancel()


def _follow(settings: Settings, health: Health, events: Events, group: TaskGroup) -> None:
    """One reader for each topic and partition."""
    names = topics(settings)
    kinds = (
        ("orderbook", names.orderbook, BACK, events.take_books),
        ("trades", names.trades, BACK, events.take_trades),
        ("order_updates", names.order_updates, 0, events.take_order_updates),
    )
    for kind, topic, back, take in kinds:
        progress = Progress(health, kind, settings.partitions)
        for partition in range(settings.partitions):
            follow = Follow(settings, kind, topic, partition, back, take, progress)
            if kind == "orderbook":
                follow.go_back = events.go_back
            group.start_soon(follow.run, name=f"follow {topic}/{partition}")


@asynccontextmanager
async def _serving(settings: Settings, markets: Markets, desk: FrontDesk) -> AsyncIterator[None]:
    address = f"{settings.host}:{settings.market_data_port}"
    name = "exchange.v1.MarketData"
    async with (
        serve_grpc(register(markets), address, service_names=[name], drain_s=settings.drain_s / 2) as port,
        serve_websockets(
            desk, settings.host, settings.market_data_ws_port, settings.max_connections
        ) as ws_port,
    ):
        log.info("market-data serves", grpc_port=port, ws_port=ws_port)
        yield


if __name__ == "__main__":
    run("market-data", main)
