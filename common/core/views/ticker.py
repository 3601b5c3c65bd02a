"""The last 24 hours of a market, in buckets of one minute."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from common.core.views.candles import Candle, CandleView, merge, open_time_us
from common.core.views.trades import TradeLike

_MINUTE_S = 60
_WINDOW_US = 86_400 * 1_000_000


@dataclass(slots=True, frozen=True)
class Ticker:
    """Prices in ticks, 0 where there was none; `last_ticks` may be older than 24 hours."""

    last_ticks: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    volume_lots: int
    quote_volume_atoms: int
    trades: int


class Ticker24h:
    """Kept up to date by trades; precise to a minute at the far end of the window.

    It does not notice repeated trades: a TradeTape in front of it does. Reading costs O(1) but for
    once a minute, when the closed buckets are summed anew.
    """

    __slots__ = ("_closed", "_current", "_minutes", "_sum", "last_ticks")

    def __init__(self, atoms_per_tick_lot: int, last_ticks: int = 0, minutes: Iterable[Candle] = ()) -> None:
        """`minutes`: one-minute candles of the last day, oldest first."""
        self.last_ticks = last_ticks
        self._current = CandleView(_MINUTE_S, atoms_per_tick_lot, limit=1)
        self._closed: deque[Candle] = deque(maxlen=_WINDOW_US // (_MINUTE_S * 1_000_000))
        self._sum: Candle | None = None  # Of the closed buckets; None: to be summed anew.
        for minute in minutes:
            before = self._current.current
            now = self._current.merge(minute)
            self._close(before, now.open_time_us)
            self.last_ticks = now.close_ticks

    def add(self, trade: TradeLike) -> None:
        before = self._current.current
        self._close(before, self._current.fold(trade))
        self.last_ticks = trade.price_ticks

    def at(self, now_us: int) -> Ticker:
        """The 24 hours before `now_us`; `now_us` does not go back by much between two calls."""
        starts_us = open_time_us(now_us - _WINDOW_US, _MINUTE_S)
        while self._closed and self._closed[0].open_time_us < starts_us:
            self._closed.popleft()
            self._sum = None
        if self._sum is None:
            for candle in self._closed:
                self._sum = candle if self._sum is None else merge(self._sum, candle)
        day = self._sum
        for current in self._current.newest(1):
            if current.open_time_us >= starts_us:
                day = current if day is None else merge(day, current)
        if day is None:
            return Ticker(self.last_ticks, 0, 0, 0, 0, 0, 0)
        return Ticker(
            self.last_ticks,
            day.open_ticks,
            day.high_ticks,
            day.low_ticks,
            day.volume_lots,
            day.quote_volume_atoms,
            day.trades,
        )

    def _close(self, before: Candle | None, open_time_us: int) -> None:
        """Close the minute that was current when another has begun."""
        if before is not None and before.open_time_us != open_time_us:
            self._closed.append(before)
            self._sum = None
