"""The markets and assets that there are, as order-service lists them; looked at again every few seconds."""

from collections.abc import Callable
from typing import Protocol

import anyio

from common.core.errors import ExchangeError, Unavailable, UnknownSymbol
from common.core.messages import Asset, Market
from common.health import Health
from common.telemetry import get_logger

REFRESH_S = 3.0
RETRY_S = 0.25

log = get_logger(__name__)


class MarketSource(Protocol):
    async def markets(self) -> list[Market]: ...


class Directory:
    """Markets by id and by symbol. `on_market` hears of each new or changed one, before it can be found."""

    def __init__(self, source: MarketSource, health: Health) -> None:
        self._source = source
        self._health = health
        self.on_market: Callable[[Market], None] = lambda _market: None
        self._by_id: dict[int, Market] = {}
        self._by_symbol: dict[str, Market] = {}
        self._assets: dict[int, Asset] = {}
        self._asked = anyio.Event()
        self._refreshed = anyio.Event()
        self._loaded = False
        health.set("markets", False, "not loaded")

    def market(self, market_id: int) -> Market | None:
        return self._by_id.get(market_id)

    def by_symbol(self, symbol: str) -> Market:
        """Raises UnknownSymbol, or Unavailable while no market is known at all."""
        found = self._by_symbol.get(symbol)
        if not self._loaded:
            raise Unavailable("the markets are being loaded")
        if found is None:
            raise UnknownSymbol(f"there is no market {symbol[:40]!r}", {"symbol": symbol[:40]})
        return found

    def asset(self, asset_id: int) -> Asset | None:
        return self._assets.get(asset_id)

    def of_partition(self, partition: int) -> list[Market]:
        return [market for market in self._by_id.values() if market.partition == partition]

    async def learn(self, market_id: int) -> Market | None:
        """The market, asking order-service once when it is unknown; None when it is still unknown."""
        if market_id not in self._by_id:
            refreshed = self._refreshed
            self._asked.set()
            with anyio.move_on_after(REFRESH_S):
                await refreshed.wait()
        return self._by_id.get(market_id)

    async def run(self) -> None:
        """Refresh until cancelled: at once, every REFRESH_S, and when somebody meets an unknown market."""
        while True:
            try:
                found = await self._source.markets()
            except ExchangeError as error:
                log.warning("markets cannot be listed", error=error.message)
                await anyio.sleep(REFRESH_S if self._loaded else RETRY_S)
                continue
            self._take(found)
            with anyio.move_on_after(REFRESH_S if self._loaded else RETRY_S):
                await self._asked.wait()
            self._asked = anyio.Event()

    def _take(self, found: list[Market]) -> None:
        for market in found:
            if self._by_id.get(market.market_id) == market:
                continue
            self.on_market(market)
            self._assets[market.base.asset_id] = market.base
            self._assets[market.quote.asset_id] = market.quote
            self._by_id[market.market_id] = market
            self._by_symbol[market.symbol] = market
        if found:  # An exchange without markets has nothing to serve yet.
            self._loaded = True
            self._health.set("markets", True)
        self._refreshed.set()
        self._refreshed = anyio.Event()
