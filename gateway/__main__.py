"""`python -m gateway`: chooses the adapters and nests the lifetimes."""

import trio

from common.config import Settings
from common.health import Health
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from gateway.app import build
from gateway.auth import BearerIdentity
from gateway.batching import OrderBatcher
from gateway.bridge import Bridge, open_channel
from gateway.markets import Markets
from gateway.serve import Front, open_listener, raise_file_limit
from gateway.services import Services

DRAIN_SHARE = 0.8  # Of drain_s for the connections; the rest is for what they need until their end.

log = get_logger("gateway")


async def main(settings: Settings, life: Lifecycle) -> None:
    """Resources > working > serving > accepting; each ends when the next one has."""
    file_limit = raise_file_limit()
    listener = open_listener(settings)
    async with (
        open_channel(settings.orders_internal_address) as orders_channel,
        open_channel(settings.market_data_address) as market_data_channel,
    ):
        services = Services(Bridge(), orders_channel, market_data_channel)
        markets = Markets(services.list_markets)
        batcher = OrderBatcher(
            services.place, batch_orders=settings.batch_orders, queue_orders=settings.queue_orders
        )
        health = Health()
        identify = BearerIdentity(services.authenticate, settings.token_cache_s)
        app = build(settings, services, markets, batcher, identify, health)
        front = Front(app, settings, file_limit)
        async with trio.open_nursery() as working:
            working.start_soon(markets.run)
            working.start_soon(batcher.run)
            working.start_soon(services.keep_orders_awake)
            calm_collector()
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(front.accept, listener, connections)
                    log.info("listening", address=listener.getsockname()[:2])
                    await life.stopped()
                    accepting.cancel_scope.cancel()
                health.set("gateway", False, "draining")
                connections.cancel_scope.deadline = trio.current_time() + settings.drain_s * DRAIN_SHARE
                await front.stop()
            working.cancel_scope.cancel()


if __name__ == "__main__":
    run("gateway", main, backend="trio")
