"""The last trades of a market."""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class TradeLike(Protocol):
    """What the views read of a trade; `exchange.v1.PublicTrade` is one too."""

    @property
    def market_id(self) -> int: ...
    @property
    def trade_id(self) -> int: ...
    @property
    def price_ticks(self) -> int: ...
    @property
    def qty_lots(self) -> int: ...
    @property
    def taker_side(self) -> int: ...
    @property
    def time_us(self) -> int: ...


class PublicTrade(NamedTuple):
    """A trade without its parties; `taker_side` is a Side. A tuple, because there is one for every trade."""

    market_id: int
    trade_id: int
    price_ticks: int
    qty_lots: int
    taker_side: int
    time_us: int


class TradeTape:
    """The last `limit` trades. Trade ids are consecutive, so repeats and holes show.

    `last_trade_id` is that of the newest trade seen, 0 before any. A tape that starts in the middle
    has no hole before its first trade.
    """

    __slots__ = ("_trades", "last_trade_id")

    def __init__(self, limit: int, trades: Iterable[TradeLike] = ()) -> None:
        """`trades`: what is known already, oldest first."""
        assert limit > 0
        self._trades: deque[TradeLike] = deque(maxlen=limit)
        self.last_trade_id = 0
        for trade in trades:
            self.add(trade)

    def missing(self, trade_id: int) -> int:
        """How many trades lie between the newest one seen and `trade_id`."""
        return max(0, trade_id - self.last_trade_id - 1) if self.last_trade_id else 0

    def add(self, trade: TradeLike) -> bool:
        """Append a trade; False, changing nothing, when it has been seen. Ask `missing` first."""
        if trade.trade_id <= self.last_trade_id:
            return False
        self._trades.append(trade)
        self.last_trade_id = trade.trade_id
        return True

    def newest(self, count: int) -> list[TradeLike]:
        """At most `count` trades, newest first."""
        assert count >= 0
        return [trade for trade, _ in zip(reversed(self._trades), range(count), strict=False)]
