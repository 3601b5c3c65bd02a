"""Candles: open, high, low, close and volume of the trades in an interval.

An interval without trades has no candle. Intervals start at multiples of their length since the
epoch, so that a day starts at midnight UTC and longer candles are made of whole shorter ones.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice

from common.core.views.trades import TradeLike

INTERVALS_S = (60, 300, 900, 3_600, 86_400)


@dataclass(slots=True)
class Candle:
    """Prices in ticks, `volume_lots` of the base, `quote_volume_atoms` of the quote asset."""

    open_time_us: int
    open_ticks: int
    high_ticks: int
    low_ticks: int
    close_ticks: int
    volume_lots: int
    quote_volume_atoms: int
    trades: int


def open_time_us(time_us: int, interval_s: int) -> int:
    """When the interval that contains `time_us` began."""
    return time_us - time_us % (interval_s * 1_000_000)


def merge(earlier: Candle, later: Candle) -> Candle:
    """Both as one candle that opens when `earlier` does; its trades came first."""
    assert earlier.open_time_us <= later.open_time_us
    return Candle(
        earlier.open_time_us,
        earlier.open_ticks,
        max(earlier.high_ticks, later.high_ticks),
        min(earlier.low_ticks, later.low_ticks),
        later.close_ticks,
        earlier.volume_lots + later.volume_lots,
        earlier.quote_volume_atoms + later.quote_volume_atoms,
        earlier.trades + later.trades,
    )


def aggregate(trades: Iterable[TradeLike], interval_s: int, atoms_per_tick_lot: int) -> list[Candle]:
    """The candles of one market's trades, oldest first; the trades by trade id."""
    view = CandleView(interval_s, atoms_per_tick_lot, limit=None)
    for trade in trades:
        view.fold(trade)
    return view.newest(None)


def roll_up(candles: Iterable[Candle], interval_s: int) -> list[Candle]:
    """Longer candles made of shorter ones, oldest first both; their lengths must divide."""
    view = CandleView(interval_s, 1, limit=None)
    for candle in candles:
        view.merge(candle)
    return view.newest(None)


class CandleView:
    """The last `limit` candles of one market and interval (None: all), kept up to date by trades.

    It does not notice repeated trades: a TradeTape in front of it does. The last candle grows in place, since
    every trade passes here for each interval; what is given out does not change any more.
    """

    __slots__ = ("_atoms_per_tick_lot", "_candles", "_interval_us", "interval_s")

    def __init__(
        self,
        interval_s: int,
        atoms_per_tick_lot: int,
        limit: int | None,
        candles: Iterable[Candle] = (),
    ) -> None:
        """`candles`: what is known already, oldest first, of the same interval."""
        assert interval_s > 0
        assert limit is None or limit > 0
        self.interval_s = interval_s
        self._interval_us = interval_s * 1_000_000
        self._atoms_per_tick_lot = atoms_per_tick_lot
        self._candles: deque[Candle] = deque(maxlen=limit)
        for candle in candles:
            self.merge(candle)

    def add(self, trade: TradeLike) -> Candle:
        """Take in a trade; the candle as it now stands."""
        self.fold(trade)
        return replace(self._candles[-1])

    def fold(self, trade: TradeLike) -> int:
        """Take in a trade; when its candle opened."""
        price_ticks, qty_lots, time_us = trade.price_ticks, trade.qty_lots, trade.time_us
        quote_atoms = price_ticks * qty_lots * self._atoms_per_tick_lot
        starts_us = time_us - time_us % self._interval_us
        candles = self._candles
        if not candles or candles[-1].open_time_us < starts_us:
            candles.append(
                Candle(
                    starts_us, price_ticks, price_ticks, price_ticks, price_ticks, qty_lots, quote_atoms, 1
                )
            )
            return starts_us
        candle = candles[-1]
        if price_ticks > candle.high_ticks:
            candle.high_ticks = price_ticks
        elif price_ticks < candle.low_ticks:
            candle.low_ticks = price_ticks
        candle.close_ticks = price_ticks
        candle.volume_lots += qty_lots
        candle.quote_volume_atoms += quote_atoms
        candle.trades += 1
        return candle.open_time_us

    def merge(self, part: Candle) -> Candle:
        """Take in a candle of this or a shorter interval that follows all before; the result."""
        starts_us = open_time_us(part.open_time_us, self.interval_s)
        newest = self._candles[-1] if self._candles else None
        # Times of the log never go back; trades of one market fetched from two places might.
        if newest is not None and newest.open_time_us >= starts_us:
            self._candles[-1] = merge(newest, replace(part, open_time_us=newest.open_time_us))
        else:
            self._candles.append(replace(part, open_time_us=starts_us))
        return replace(self._candles[-1])

    @property
    def current(self) -> Candle | None:
        """The last candle, which grows with the next trade of its interval."""
        return self._candles[-1] if self._candles else None

    def newest(self, count: int | None) -> list[Candle]:
        """The last `count` candles (None: all), oldest first."""
        assert count is None or count >= 0
        newest = list(islice(reversed(self._candles), count))
        if newest:
            newest[0] = replace(newest[0])
        newest.reverse()
        return newest
