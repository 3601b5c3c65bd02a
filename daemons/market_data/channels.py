"""The public channels of each market: who listens, and what they are sent.

A channel publishes what its market's feed has gathered; each frame is made once for all listeners. A
listener who joined or fell behind is brought up to date from the feed's present state by `catch_up`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from time import time_ns

from common.core.messages import Market
from common.core.views import INTERVALS_S
from common.socket_messages import INTERVALS_S as INTERVAL_NAMES
from daemons.market_data import metrics
from daemons.market_data.fanout import Fanout
from daemons.market_data.feed import MarketFeed
from daemons.market_data.outbox import Changes, Frame, Outbox, Subscription
from daemons.market_data.protocol import ChannelName
from daemons.market_data.render import DepthBody, KlinesBody, TickerBody, TradesBody

TRADES_IN_SNAPSHOT = 100
KLINES_IN_SNAPSHOT = 500
WHOLE_BOOK = 1 << 30

NowUs = Callable[[], int]


def now_us() -> int:
    return time_ns() // 1_000


class Channel(ABC):
    """What the kinds have in common. `sequence` is that of the last frame published.

    A snapshot shows the state that was published last and carries its sequence: the next update then
    follows for those who were there and for those who have just come.
    """

    kind = ""
    conflates = False

    def __init__(self, name: str, feed: MarketFeed, fanout: Fanout) -> None:
        self.name = name
        self.feed = feed
        self.sequence = 0
        self._fanout = fanout
        self._listeners: dict[Subscription, None] = {}
        self._snapshot: Frame | None = None

    def join(self, outbox: Outbox) -> Subscription:
        """A new listener; the snapshot comes first, as soon as there is one."""
        subscription = Subscription(self, outbox)
        self._listeners[subscription] = None
        metrics.subscriptions.labels(self.kind).inc()
        outbox.want(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        if self._listeners.pop(subscription, self) is not self:
            metrics.subscriptions.labels(self.kind).dec()
        subscription.outbox.forget(subscription)

    def outboxes(self) -> Iterator[Outbox]:
        """Of all who listen."""
        return (subscription.outbox for subscription in self._listeners)

    def catch_up(self, subscription: Subscription) -> Frame | None:
        if subscription.sequence:
            metrics.conflations.labels(self.kind).inc()
        return self.snapshot()

    def snapshot(self) -> Frame | None:
        """The present state, the same frame for all who ask before it changes; None: nothing to show."""
        if self._snapshot is None:
            self._snapshot = self._make_snapshot()
        return self._snapshot

    @abstractmethod
    def _make_snapshot(self) -> Frame | None: ...

    def _publish(self, frame: Frame, changed: Changes | None = None) -> None:
        self.sequence = frame.sequence
        self._snapshot = frame if frame.snapshot else None
        if self._listeners:
            self._fanout.add(self, frame.born_s)
        for subscription in self._listeners:
            subscription.outbox.offer(subscription, frame, changed)

    def _publish_snapshot(self) -> None:
        self._snapshot = None
        frame = self.snapshot()
        if frame is not None:
            self._publish(frame)


class DepthChannel(Channel):
    """Whole book, then changed levels. A book that is stale is not shown until it is whole again."""

    kind = "depth"
    conflates = True

    def publish(self, born_s: float) -> None:
        replaced, changes = self.feed.take_changes()
        depth = self.feed.depth
        if not depth.synced:
            self._snapshot = None
        elif replaced:
            self.sequence = depth.sequence
            self._publish_snapshot()
        elif changes:
            frame = self._update(changes, self.sequence, depth.sequence, born_s)
            self._publish(frame, changes)

    def catch_up(self, subscription: Subscription) -> Frame | None:
        self.publish(0.0)  # So that the snapshot does not run ahead of what the others were told.
        if not self.feed.depth.synced:
            return None
        if subscription.changed is None or not subscription.sequence:
            return super().catch_up(subscription)
        metrics.conflations.labels(self.kind).inc()
        return self._update(subscription.changed, subscription.sequence, self.sequence, 0.0)

    def _make_snapshot(self) -> Frame | None:
        if not self.feed.depth.synced:
            return None
        bids, asks = self.feed.depth.top(WHOLE_BOOK)
        body = DepthBody(self.feed.market, bids, asks)
        return Frame(self.name, body, snapshot=True, sequence=self.sequence, previous=0)

    def _update(self, changes: Changes, previous: int, sequence: int, born_s: float) -> Frame:
        bids = [(price, qty) for (is_bid, price), qty in changes.items() if is_bid]
        asks = [(price, qty) for (is_bid, price), qty in changes.items() if not is_bid]
        body = DepthBody(self.feed.market, bids, asks)
        return Frame(self.name, body, snapshot=False, sequence=sequence, previous=previous, born_s=born_s)


class TradesChannel(Channel):
    """The last trades, then each as it comes; `sequence` is the last trade's id."""

    kind = "trades"

    def publish(self, born_s: float) -> None:
        trades = self.feed.take_trades()
        if not trades:
            return
        body = TradesBody(self.feed.market, trades)
        last = trades[-1].trade_id
        self._publish(
            Frame(self.name, body, snapshot=False, sequence=last, previous=self.sequence, born_s=born_s)
        )

    def catch_up(self, subscription: Subscription) -> Frame | None:
        self.publish(0.0)
        return super().catch_up(subscription)

    def start(self) -> None:
        """The tape is seeded: those who wait for it are shown it."""
        self.feed.take_trades()
        self.sequence = self.feed.tape.last_trade_id
        self._publish_snapshot()

    def _make_snapshot(self) -> Frame | None:
        if not self.feed.seeded:
            return None
        trades = self.feed.tape.newest(TRADES_IN_SNAPSHOT)[::-1]
        body = TradesBody(self.feed.market, trades)
        return Frame(self.name, body, snapshot=True, sequence=self.sequence, previous=0)


class KlinesChannel(Channel):
    """Candles of one interval; an update carries those that changed, whole."""

    kind = "klines"

    def __init__(self, name: str, feed: MarketFeed, fanout: Fanout, interval_s: int) -> None:
        super().__init__(name, feed, fanout)
        self._interval_s = interval_s

    def publish(self, born_s: float) -> None:
        candles = self.feed.take_candles(self._interval_s)
        if not candles:
            return
        body = KlinesBody(self.feed.market, candles)
        last = self.feed.tape.last_trade_id
        self._publish(
            Frame(self.name, body, snapshot=False, sequence=last, previous=self.sequence, born_s=born_s)
        )

    def start(self) -> None:
        self.feed.take_candles(self._interval_s)
        self.sequence = self.feed.tape.last_trade_id
        self._publish_snapshot()

    def catch_up(self, subscription: Subscription) -> Frame | None:
        self.publish(0.0)
        return super().catch_up(subscription)

    def _make_snapshot(self) -> Frame | None:
        if not self.feed.seeded:
            return None
        candles = self.feed.candles[self._interval_s].newest(KLINES_IN_SNAPSHOT)
        body = KlinesBody(self.feed.market, candles)
        return Frame(self.name, body, snapshot=True, sequence=self.sequence, previous=0)


class TickerChannel(Channel):
    """The last 24 hours; each message replaces the one before. `sequence` counts the changes."""

    kind = "ticker"
    conflates = True

    def __init__(self, name: str, feed: MarketFeed, fanout: Fanout, now: NowUs) -> None:
        super().__init__(name, feed, fanout)
        self._now = now
        self._told: TickerBody | None = None

    def body(self) -> TickerBody:
        depth = self.feed.depth
        return TickerBody(
            self.feed.market, self.feed.ticker(self._now()), depth.best_bid_ticks, depth.best_ask_ticks
        )

    def publish(self, born_s: float) -> None:
        """Tell when something changed, be it only that an old minute left the window."""
        if not self.feed.seeded:
            return
        body = self.body()
        if body != self._told:
            self._told = body
            previous, sequence = self.sequence, self.sequence + 1
            self._publish(
                Frame(self.name, body, snapshot=False, sequence=sequence, previous=previous, born_s=born_s)
            )

    def catch_up(self, subscription: Subscription) -> Frame | None:
        if not subscription.sequence or self._told is None:
            return super().catch_up(subscription)
        metrics.conflations.labels(self.kind).inc()
        return Frame(
            self.name,
            self._told,
            snapshot=False,
            sequence=self.sequence,
            previous=subscription.sequence,
        )

    def _make_snapshot(self) -> Frame | None:
        if not self.feed.seeded:
            return None
        if self._told is None:
            self._told, self.sequence = self.body(), self.sequence + 1
        return Frame(self.name, self._told, snapshot=True, sequence=self.sequence, previous=0)


class MarketChannels:
    """All public channels of one market."""

    def __init__(self, feed: MarketFeed, fanout: Fanout | None = None, now: NowUs = now_us) -> None:
        """Whoever gives no `fanout` has no listener to flush."""
        symbol = feed.market.symbol
        fanout = fanout or Fanout()
        self.feed = feed
        self.depth = DepthChannel(f"depth:{symbol}", feed, fanout)
        self.trades = TradesChannel(f"trades:{symbol}", feed, fanout)
        self.ticker = TickerChannel(f"ticker:{symbol}", feed, fanout, now)
        self.klines = {
            interval_s: KlinesChannel(f"klines:{symbol}:{name}", feed, fanout, interval_s)
            for name, interval_s in INTERVAL_NAMES.items()
        }
        assert set(self.klines) == set(INTERVALS_S)

    def find(self, name: ChannelName) -> Channel:
        match name.kind:
            case "depth":
                return self.depth
            case "trades":
                return self.trades
            case "ticker":
                return self.ticker
        return self.klines[name.interval_s]

    def seeded(self) -> None:
        """The feed knows its history: show it to those who wait."""
        self.trades.start()
        for channel in self.klines.values():
            channel.start()
        self.ticker.publish(0.0)

    def publish(self, born_s: float) -> None:
        """What changed in the book, and the new trades."""
        self.depth.publish(born_s)
        if self.feed.seeded:
            self.trades.publish(born_s)

    def publish_summaries(self) -> None:
        """A few times a second: candles and ticker."""
        if self.feed.seeded:
            for channel in self.klines.values():
                channel.publish(0.0)
        self.ticker.publish(0.0)

    def changed(self, market: Market) -> None:
        """Fees or status; the units of a market never change."""
        self.feed.market = market
