"""The markets that this process serves: for each, its feed and its channels."""

from collections.abc import Callable, Iterator
from time import thread_time

import anyio

from common.core.messages import Market
from daemons.market_data.channels import MarketChannels, now_us
from daemons.market_data.directory import Directory
from daemons.market_data.fanout import Fanout
from daemons.market_data.feed import MarketFeed

PULSE_S = 0.1
LEAST_PAUSE_S, MOST_PAUSE_S = 0.001, 0.04  # A pause that is shorter costs more than it saves.
AGING_PULSES = 50  # Every so many pulses, markets at rest are looked at too: old minutes leave their ticker.


class Markets:
    """Filled by the directory as it learns of markets; none ever goes away."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._by_id: dict[int, MarketChannels] = {}
        self._touched: dict[int, MarketChannels] = {}
        self._changed: dict[MarketChannels, float] = {}  # And since when it is to be told.
        self._wanted = anyio.Event()
        self._fanout = Fanout(self._want)
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
        """Have told what the feed has gathered, which came in at `born_s`; 0: not measured."""
        self._changed.setdefault(channels, born_s)
        self._want()
        self._touched[channels.feed.market.market_id] = channels
        self.on_touch(channels)

    async def run(self) -> None:
        """Publish until cancelled: books and trades as they change, candles and tickers now and then."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._pulse)
            await self._tell()

    def _want(self) -> None:
        self._wanted.set()

    async def _tell(self) -> None:
        """What changes while the listeners are told goes out together: one frame tells it.

        Telling takes at most two thirds of a core, however many listen; the rest is for everything else.
        """
        while True:
            await self._wanted.wait()
            begin_s = thread_time()
            changed, self._changed = self._changed, {}
            for channels, born_s in changed.items():
                channels.publish(born_s)
            await self._fanout.flush()
            if not self._changed:
                self._wanted = anyio.Event()
            pause_s = (thread_time() - begin_s) / 2
            if pause_s >= LEAST_PAUSE_S:
                await anyio.sleep(min(pause_s, MOST_PAUSE_S))

    async def _pulse(self) -> None:
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
            self._by_id[market.market_id] = MarketChannels(MarketFeed(market), self._fanout, now_us)
        else:
            known.changed(market)
