"""Fetches what Kafka did not bring: each market's history at the start, and missed trades later.

A trade that is missing is on its way to PostgreSQL, which has it as soon as it is settled.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import anyio
from psycopg_pool import PoolTimeout

from common.core.views import PublicTrade
from common.db import Pool
from common.health import Health
from common.telemetry import get_logger
from daemons.market_data import history, metrics
from daemons.market_data.channels import MarketChannels
from daemons.market_data.feed import History, MarketFeed
from daemons.market_data.markets import Markets

LOOK_S = 0.2
GRACE_S = 0.3  # The book's topic may be ahead of the trades' by this much.
GIVE_UP_S = 15.0

log = get_logger(__name__)


class Store(Protocol):
    """Settled trades and candles."""

    async def load(self, market_id: int) -> History: ...
    async def missed(self, market_id: int, first: int, last: int) -> Sequence[PublicTrade]: ...


class PostgresStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, market_id: int) -> History:
        return await history.load(self._pool, market_id)

    async def missed(self, market_id: int, first: int, last: int) -> Sequence[PublicTrade]:
        return await history.missed_trades(self._pool, market_id, first, last)


class Repair:
    """Looks at every market a few times a second; costs nothing while nothing is missing."""

    def __init__(self, markets: Markets, store: Store, health: Health, give_up_s: float = GIVE_UP_S) -> None:
        self._markets = markets
        self._store = store
        self._health = health
        self._give_up_s = give_up_s
        health.set("history", False, "not loaded")

    async def run(self) -> None:
        """Seed and repair until cancelled; while PostgreSQL does not answer, live trades go on."""
        while True:
            for channels in self._markets:
                if not channels.feed.seeded:
                    await self._attempt(self._seed, channels)
                elif self._due(channels.feed):
                    await self._attempt(self._fill, channels)
            loaded = [channels.feed.seeded for channels in self._markets]
            self._health.set(
                "history", bool(loaded) and all(loaded), f"{sum(loaded)} of {len(loaded)} markets"
            )
            await anyio.sleep(LOOK_S)

    def _due(self, feed: MarketFeed) -> bool:
        return feed.hole_since_s is not None and anyio.current_time() - feed.hole_since_s >= GRACE_S

    async def _attempt(
        self, step: Callable[[MarketChannels], Awaitable[None]], channels: MarketChannels
    ) -> None:
        try:
            with anyio.fail_after(10):
                await step(channels)
        except (*history.Unreachable, PoolTimeout, TimeoutError) as error:
            log.warning("postgresql", market=channels.feed.market.symbol, error=repr(error))

    async def _seed(self, channels: MarketChannels) -> None:
        found = await self._store.load(channels.feed.market.market_id)
        channels.feed.seed(found, anyio.current_time())
        channels.seeded()
        self._markets.publish(channels, 0.0)

    async def _fill(self, channels: MarketChannels) -> None:
        feed = channels.feed
        hole = feed.hole()
        if hole is None:
            return
        trades = await self._store.missed(feed.market.market_id, *hole)
        metrics.trades_fetched.inc(len(trades))
        now_s = anyio.current_time()
        feed.apply_trades(trades, now_s)
        if feed.hole_since_s is not None and now_s - feed.hole_since_s > self._give_up_s:
            missed = feed.skip_hole(now_s)
            metrics.trades_missed.inc(missed)
            log.error("trades are missing", market=feed.market.symbol, count=missed)
        self._markets.publish(channels, now_s)
