"""Small things that the tests of market-data are made of."""

from collections.abc import Sequence

from common.core.messages import BookUpdate, Side
from common.core.views import PublicTrade
from daemons.local.prepare import default_markets
from daemons.market_data.feed import History, MarketFeed

BTC, ETH = default_markets(2)
Levels = Sequence[tuple[int, int]]


def trade(trade_id: int, price: int = 100, qty: int = 1, time_us: int = 0) -> PublicTrade:
    return PublicTrade(BTC.market_id, trade_id, price, qty, Side.BUY, time_us or trade_id)


def full(sequence: int, bids: Levels = (), asks: Levels = (), last_trade_id: int = 0) -> BookUpdate:
    return BookUpdate(BTC.market_id, True, sequence, 0, last_trade_id, list(bids), list(asks), sequence)


def change(sequence: int, previous: int, bids: Levels = (), asks: Levels = ()) -> BookUpdate:
    return BookUpdate(BTC.market_id, False, sequence, previous, 0, list(bids), list(asks), sequence)


def seeded_feed(*trades: PublicTrade) -> MarketFeed:
    """A feed whose history is these trades."""
    feed = MarketFeed(BTC)
    feed.seed(History({}, trades, trades), 0.0)
    return feed
