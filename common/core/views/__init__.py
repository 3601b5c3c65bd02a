"""What the public sees of a market, built from what the engine tells. Times are passed in.

depth    the order book by levels, from full books and updates, with gaps noticed
trades   the last trades, with repeats dropped and holes counted
candles  open, high, low, close and volume by interval
ticker   the last 24 hours, from buckets of one minute
"""

from common.core.views.candles import INTERVALS_S, Candle, CandleView, aggregate, merge, roll_up
from common.core.views.depth import DepthView, Level
from common.core.views.ticker import Ticker, Ticker24h
from common.core.views.trades import PublicTrade, TradeLike, TradeTape

__all__ = [
    "INTERVALS_S",
    "Candle",
    "CandleView",
    "DepthView",
    "Level",
    "PublicTrade",
    "Ticker",
    "Ticker24h",
    "TradeLike",
    "TradeTape",
    "aggregate",
    "merge",
    "roll_up",
]
