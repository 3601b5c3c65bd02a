"""`python -m gateway`: chooses the adapters and nests the lifetimes."""

import trio

from common.config import Settings
from common.health import Health
from common.identity.kept import Kept
from common.identity.signed import SignedRequests
from common.identity.window import SharedReplays, Window
from common.supervise import Lifecycle, calm_collector, run
from common.telemetry import get_logger
from common.tls import Role, internal_tls
from gateway.app import build
from gateway.auth import Identity, claims_through
from gateway.batching import OrderBatcher
from gateway.bridge import Bridge, open_channel
from gateway.door import Door
from gateway.idempotency import Idempotency
from gateway.limits import Limits, limiter
from gateway.markets import Markets
from gateway.proxies import Proxies
from gateway.records import RedisRecords
from gateway.redis_pipe import RedisPipe, redis_pipe
from gateway.serve import Front, open_listener, open_own_listener, raise_file_limit
from gateway.services import Services
from gateway.settled import SettledWaits

DRAIN_SHARE = 0.8  # Of drain_s for the connections; the rest is for what they need until their end.

log = get_logger("gateway")


async def main(settings: Settings, life: Lifecycle) -> None:
    """Resources > working > serving > accepting; each ends when the next one has."""
    tls = internal_tls(settings, Role.GATEWAY)
    proxies = Proxies(settings.trusted_proxies)
    health = Health()
    file_limit = raise_file_limit()
    listener, own_listener = open_listener(settings), open_own_listener(settings)
    async with (
        open_channel(settings.orders_internal_address, tls) as orders_channel,
        open_channel(settings.market_data_address, tls, Role.MARKET_DATA) as market_data_channel,
        redis_pipe(settings.redis_url, health) as pipe,
    ):
        services = Services(Bridge(), orders_channel, market_data_channel)
        markets = Markets(services.list_markets)
        batcher = OrderBatcher(
            services.place, batch_orders=settings.batch_orders, queue_orders=settings.queue_orders
        )
        identity = _identity(settings, services, pipe)
        checks = limiter(settings, pipe)
        waits = SettledWaits(services, settings.settle_waiters)
        idempotency = Idempotency(
            services.claim_keys, services.settle_keys, RedisRecords(pipe, settings.topic_prefix)
        )
        door = Door(batcher.wait_s, queue_s=settings.queue_s, most_requests=settings.max_requests)
        app = build(
            settings,
            services,
            markets,
            batcher,
            identity,
            health,
            Limits(checks, identity.knows),
            idempotency,
            waits,
            door,
            proxies,
        )
        front = Front(app, door, proxies, settings, file_limit, tls.client_context() if tls else None)
        async with trio.open_nursery() as working:
            working.start_soon(markets.run)
            working.start_soon(batcher.run)
            working.start_soon(checks.run)
            working.start_soon(idempotency.run)
            working.start_soon(services.keep_orders_awake)
            calm_collector()
            async with trio.open_nursery() as connections:
                async with trio.open_nursery() as accepting:
                    accepting.start_soon(front.accept, listener, connections)
                    accepting.start_soon(front.accept, own_listener, connections)
                    log.info("listening", address=listener.getsockname()[:2])
                    await life.stopped()
                    accepting.cancel_scope.cancel()
                health.set("gateway", False, "draining")
                connections.cancel_scope.deadline = trio.current_time() + settings.drain_s * DRAIN_SHARE
                waits.end()
                await front.stop()
            working.cancel_scope.cancel()


def _identity(settings: Settings, services: Services, pipe: RedisPipe) -> Identity:
    window = Window(settings.receive_window_ms)
    replays = SharedReplays(window, claims_through(pipe, settings.topic_prefix))
    tokens = Kept(services.authenticate, settings.token_cache_s, trio.current_time)
    keys = Kept(services.find_key, settings.token_cache_s, trio.current_time)
    return Identity(tokens, SignedRequests(keys, window, replays))


if __name__ == "__main__":
    run("gateway", main, backend="trio")
