"""The markets that this process serves: for each, its feed and its channels."""

from collections.abc import Callable, Iterator

import anyio

from common.core.messages import Market
from daemons.market_data.channels import MarketChannels, now_us
from daemons.market_data.directory import Directory
from daemons.market_data.feed import MarketFeed

PULSE_S = 0.1
AGING_PULSES = 50  # Every so many pulses, markets at rest are looked at too: old minutes leave their ticker.


class Markets:
    """Filled by the directory as it learns of markets; none ever goes away."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._by_id: dict[int, MarketChannels] = {}
        self._touched: dict[int, MarketChannels] = {}
        self.on_touch: Callable[[MarketChannels], None] = lambda _channels: None
        directory.on_market = self._take

    def __iter__(self) -> Iterator[MarketChannels]:
        return iter(list(self._by_id.values()))

    def of_partition(self, partition: int) -> list[MarketChannels]:
        return [channels for channels in self if channels.feed.market.partition == partition]

    def by_symbol(self, symbol: str) -> MarketChannels:
        """Raises UnknownSymbol."""
        return self._by_id[self._directory.by_symbol(symbol).market_id]

    async def learn(self, market_id: int) -> MarketChannels | None:
        """Asks order-service about a market that is unknown; None when it does not know either."""
        if market_id not in self._by_id:
            await self._directory.learn(market_id)
        return self._by_id.get(market_id)

    def publish(self, channels: MarketChannels, born_s: float) -> None:
        """Tell what the feed has gathered; nothing may be awaited between gathering and this."""
        channels.publish(born_s)
        self._touched[channels.feed.market.market_id] = channels
        self.on_touch(channels)

    async def run(self) -> None:
        """Publish candles and tickers of touched markets, until cancelled."""
        pulses = 0
        while True:
            await anyio.sleep(PULSE_S)
            pulses += 1
            touched, self._touched = self._touched, {}
            for channels in self if pulses % AGING_PULSES == 0 else touched.values():
                channels.publish_summaries()

    def _take(self, market: Market) -> None:
        known = self._by_id.get(market.market_id)
        if known is None:
            self._by_id[market.market_id] = MarketChannels(MarketFeed(market), now_us)
        else:
            known.changed(market)
