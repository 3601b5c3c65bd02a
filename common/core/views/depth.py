"""The order book of a market by levels, kept up to date from the engine's book updates."""

from bisect import bisect_left, insort

from common.core.messages import BookUpdate

Level = tuple[int, int]  # (price_ticks, qty_lots)


class DepthView:
    """Starts empty and not `synced`; the first full book makes it whole.

    An update fits when its `previous` is this view's `sequence`. One that does not is a gap: it is
    not applied, and the view is not `synced` until the next full book. A full book replaces
    everything, even what is newer: after a failover, what the new leader says is the truth.
    """

    __slots__ = ("_asks", "_bids", "last_trade_id", "market_id", "sequence", "synced", "time_us")

    def __init__(self, market_id: int) -> None:
        self.market_id = market_id
        self.sequence = 0
        self.last_trade_id = 0
        self.time_us = 0
        self.synced = False
        self._bids = _Levels()
        self._asks = _Levels()

    def apply(self, update: BookUpdate) -> bool:
        """Take in an update or a full book; True when something is missing before it (a gap)."""
        assert update.market_id == self.market_id
        if update.full:
            self._bids = _Levels(update.bids)
            self._asks = _Levels(update.asks)
            self.synced = True
        elif self.synced and update.sequence <= self.sequence:
            return False  # Published again by a leader that came after a crash.
        elif not self.synced or update.previous != self.sequence:
            self.synced = False
            return True
        else:
            self._bids.change(update.bids)
            self._asks.change(update.asks)
        self.sequence = update.sequence
        self.last_trade_id = update.last_trade_id
        self.time_us = update.time_us
        return False

    def top(self, levels: int) -> tuple[list[Level], list[Level]]:
        """The best bids and asks, best first, at most `levels` of each."""
        assert levels >= 0
        return self._bids.highest(levels), self._asks.lowest(levels)

    @property
    def best_bid_ticks(self) -> int:
        """0 when there is none."""
        best = self._bids.highest(1)
        return best[0][0] if best else 0

    @property
    def best_ask_ticks(self) -> int:
        """0 when there is none."""
        best = self._asks.lowest(1)
        return best[0][0] if best else 0

    def as_full(self) -> BookUpdate:
        """The whole view as a full book, from which another view can start."""
        bids, asks = self._bids.highest(len(self._bids)), self._asks.lowest(len(self._asks))
        return BookUpdate(
            self.market_id, True, self.sequence, 0, self.last_trade_id, bids, asks, self.time_us
        )


class _Levels:
    """One side: the prices in ascending order beside the lots at each.

    A sorted list beats a tree here: finding is a binary search, and moving the pointers behind a new
    price is one memmove.
    """

    __slots__ = ("_lots", "_prices")

    def __init__(self, levels: list[Level] | None = None) -> None:
        self._lots: dict[int, int] = dict(levels or ())
        self._prices = sorted(self._lots)

    def __len__(self) -> int:
        return len(self._prices)

    def change(self, levels: list[Level]) -> None:
        for price_ticks, qty_lots in levels:
            if qty_lots == 0:
                if self._lots.pop(price_ticks, None) is not None:
                    del self._prices[bisect_left(self._prices, price_ticks)]
                continue
            if price_ticks not in self._lots:
                insort(self._prices, price_ticks)
            self._lots[price_ticks] = qty_lots

    def lowest(self, count: int) -> list[Level]:
        return [(price_ticks, self._lots[price_ticks]) for price_ticks in self._prices[:count]]

    def highest(self, count: int) -> list[Level]:
        start = max(0, len(self._prices) - count)
        return [(price_ticks, self._lots[price_ticks]) for price_ticks in reversed(self._prices[start:])]
