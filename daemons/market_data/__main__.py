"""The market-data daemon: chooses the adapters, nests the lifetimes, runs until it is told to stop.

resources   order-service's channel, PostgreSQL's sessions
working     markets, Kafka's readers, repair, candles, Redis, balances, identities
serving     gRPC, the settlers' outermost, and inside it the WebSockets: those clients are told to go first
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
from common.identity.kept import Kept
from common.identity.redis_claims import shared_replays
from common.identity.signed import SignedRequests
from common.identity.window import Window
from common.kafka import producer
from common.lease import PostgresLeases
from common.partitions import share_partitions
from common.rpc import serve_grpc
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.tls import Role, Tls, internal_tls, public_credentials
from common.topics import topics
from daemons.market_data import candles
from daemons.market_data.dead_letters import DeadLetters
from daemons.market_data.desk import FrontDesk
from daemons.market_data.directory import Directory
from daemons.market_data.events import BACK, Events
from daemons.market_data.failover import until_commits_are_lost
from daemons.market_data.follow import Follow, Progress
from daemons.market_data.identities import Identities
from daemons.market_data.markets import Markets
from daemons.market_data.orders_client import OrdersClient, orders_client
from daemons.market_data.private import PrivateDesk
from daemons.market_data.redis_sink import RedisSink
from daemons.market_data.repair import PostgresStore, Repair
from daemons.market_data.service import INTERNAL_CALLERS, register, register_internal
from daemons.market_data.ws import serve_websockets

PUBLIC, INTERNAL = "exchange.v1.MarketData", "exchange.v1.MarketDataInternal"

log = get_logger(__name__)


async def main(settings: Settings, life: Lifecycle) -> None:
    """Run until `life` ends."""
    tls = internal_tls(settings, Role.MARKET_DATA)
    _allow_connections()
    health = Health()
    async with anyio.create_task_group() as outermost:
        await outermost.start(partial(serve_health, health, settings.host, settings.health_port))
        async with (
            orders_client(settings.orders_internal_address, tls) as orders,
            _working(settings, health, orders, life) as (markets, desk, events),
            _serving(settings, tls, markets, desk, events),
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
    settings: Settings, health: Health, orders: OrdersClient, life: Lifecycle
) -> AsyncIterator[tuple[Markets, FrontDesk, Events]]:
    """Everything that keeps the views up to date, while the body runs."""
    directory = Directory(orders, health)
    markets = Markets(directory)
    private = PrivateDesk(orders, directory)
    window = Window(settings.receive_window_ms)
    # Half as long as elsewhere: as much again passes until somebody who came with it is asked about.
    keys = Kept(orders.find_key, settings.token_cache_s / 2)
    sink = RedisSink(settings.redis_url, settings.topic_prefix, health)
    writer = candles.CandleWriter(settings.postgres_url, directory.of_partition)
    dead = DeadLetters(topics(settings), partial(producer, settings))
    events = Events(markets, private, dead, writer.wake)
    markets.on_touch = sink.touch
    async with (
        pool(settings.postgres_url, name=f"market-data {settings.name}", max_size=4) as sessions,
        PostgresLeases(settings.postgres_url, settings.name) as leases,
        shared_replays(settings.redis_url, settings.topic_prefix, window) as replays,
        anyio.create_task_group() as group,
    ):
        identities = Identities(orders, SignedRequests(keys, window, replays), settings.token_cache_s)
        group.start_soon(directory.run)
        group.start_soon(markets.run)
        group.start_soon(private.run)
        group.start_soon(identities.run)
        group.start_soon(dead.run)
        group.start_soon(sink.run, markets)
        group.start_soon(Repair(markets, PostgresStore(sessions), health).run)
        _follow(settings, health, events, private, group)
        group.start_soon(writer.run, settings.partitions)
        group.start_soon(until_commits_are_lost, sessions, life.stop)
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
        yield markets, FrontDesk(markets, private, identities), events
        group.cancel_scope.cancel()


def _follow(
    settings: Settings, health: Health, events: Events, private: PrivateDesk, group: TaskGroup
) -> None:
    """One reader for each topic and partition."""
    names = topics(settings)
    kinds = (
        ("orderbook", names.orderbook, BACK, events.take_books),
        ("trades", names.trades, BACK, events.take_trades),
        ("order_updates", names.order_updates, 0, events.take_order_updates),
    )
    for kind, topic, back, take in kinds:
        on_all = private.open if kind == "order_updates" else _nothing
        progress = Progress(health, kind, settings.partitions, on_all)
        for partition in range(settings.partitions):
            follow = Follow(settings, kind, topic, partition, back, take, progress)
            if kind == "orderbook":
                follow.go_back = events.go_back
            elif kind == "order_updates":
                follow.on_new_topic = private.start_over
            group.start_soon(follow.run, name=f"follow {topic}/{partition}")


def _nothing() -> None:
    pass


@asynccontextmanager
async def _serving(
    settings: Settings, tls: Tls | None, markets: Markets, desk: FrontDesk, events: Events
) -> AsyncIterator[None]:
    drain_s = settings.drain_s / 2
    async with (
        serve_grpc(
            register_internal(markets, events.take_told),
            f"{settings.host}:{settings.market_data_internal_port}",
            service_names=[PUBLIC, INTERNAL],
            drain_s=drain_s,
            credentials=tls.server_credentials() if tls else None,
            peers=INTERNAL_CALLERS if tls else None,
        ),
        serve_grpc(
            register(markets),
            f"{settings.host}:{settings.market_data_port}",
            service_names=[PUBLIC],
            drain_s=drain_s,
            credentials=public_credentials(settings),
        ) as port,
        serve_websockets(
            desk,
            settings.host,
            settings.market_data_ws_port,
            settings.max_connections,
            tls.server_context() if tls else None,
        ) as ws_port,
    ):
        log.info("market-data serves", grpc_port=port, ws_port=ws_port)
        yield


if __name__ == "__main__":
    run("market-data", main)
