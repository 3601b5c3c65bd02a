"""From events to views: what each market looks like now. Pure: times are passed in, nothing is awaited.

Events come from Kafka (see `follow`) and from PostgreSQL (see `history`), may come twice, and may be
missing. This module decides what is new, what was seen, and what has to be fetched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.core.messages import BookUpdate, Market
from common.core.views import (
    INTERVALS_S,
    Candle,
    CandleView,
    DepthView,
    Ticker,
    Ticker24h,
    TradeLike,
    TradeTape,
)
from daemons.market_data import metrics
from daemons.market_data.outbox import Changes

TAPE = 1_000
CANDLES = 1_500  # More than a day of minutes.
MAX_WAITING = 10_000  # Trades kept behind a hole; what is dropped is fetched again.


class Fence:
    """The highest token that has spoken in one partition of one topic (I6)."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.highest = 0

    def admits(self, token: int) -> bool:
        if token < self.highest:
            metrics.stale_token.labels(self._topic).inc()
            return False
        self.highest = token
        return True


@dataclass(slots=True)
class History:
    """What PostgreSQL knows of a market's trades: the start of its tape, candles and ticker.

    `candles` by interval in seconds, oldest first, hold the trades up to `candles_to`; `later` are the
    trades after those, `tape` the newest trades of all; both oldest first.
    """

    candles: Mapping[int, Sequence[Candle]] = field(default_factory=dict)
    later: Sequence[TradeLike] = ()
    tape: Sequence[TradeLike] = ()


class MarketFeed:
    """One market: its book, tape, candles and ticker."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.depth = DepthView(market.market_id)
        self.token = 0  # Of the leader whose book this is.
        self.seeded = False
        self.hole_since_s: float | None = None
        self._waiting: dict[int, TradeLike] = {}
        self._known_trade_id = 0  # Some book update has named it.
        self._changes: Changes = {}
        self._replaced = False
        self._fresh: list[TradeLike] = []
        self._begun: dict[int, set[int]] = {interval: set() for interval in INTERVALS_S}
        self._set_views(History())

    def _set_views(self, history: History) -> None:
        unit = self.market.atoms_per_tick_lot
        self.tape = TradeTape(TAPE, history.tape)
        self.candles = {
            interval: CandleView(interval, unit, CANDLES, history.candles.get(interval, ()))
            for interval in INTERVALS_S
        }
        last_ticks = history.tape[-1].price_ticks if history.tape else 0
        self._ticker = Ticker24h(unit, last_ticks, history.candles.get(60, ()))
        for trade in history.later:
            self._count(trade)

    # ---- book -----------------------------------------------------------------------------------

    def apply_book(self, update: BookUpdate, token: int, now_s: float) -> None:
        """Take in an update or a full book whose token the fence admitted."""
        if update.full:
            self._apply_full(update, token)
        else:
            self._apply_changes(update)
        if update.last_trade_id > self._known_trade_id:
            self._known_trade_id = update.last_trade_id
            self._look_for_holes(now_s)

    def _apply_full(self, update: BookUpdate, token: int) -> None:
        # Read again from further back: what an older book says has been overtaken. A newer leader's
        # book counts even when it is older, because that leader's word is the truth.
        if self.depth.synced and (token, update.sequence) < (self.token, self.depth.sequence):
            return
        before = self.depth.as_full() if self.depth.synced else None
        self.depth.apply(update)
        self.token = token
        now = self.depth.as_full()
        same = before is not None and (before.bids, before.asks) == (now.bids, now.asks)
        if not same or (before is not None and now.sequence < before.sequence):
            self._replaced = True
            self._changes.clear()

    def _apply_changes(self, update: BookUpdate) -> None:
        was_synced, sequence = self.depth.synced, self.depth.sequence
        if self.depth.apply(update):
            if was_synced:
                metrics.book_gaps.inc()
            self._changes.clear()
        elif self.depth.sequence == sequence:
            metrics.repeats.labels("orderbook").inc()
        else:
            for price_ticks, qty_lots in update.bids:
                self._changes[True, price_ticks] = qty_lots
            for price_ticks, qty_lots in update.asks:
                self._changes[False, price_ticks] = qty_lots

    def take_changes(self) -> tuple[bool, Changes]:
        """What happened to the book since the last call: whether it was replaced, and what changed."""
        taken = self._replaced, self._changes
        self._replaced, self._changes = False, {}
        return taken

    # ---- trades ---------------------------------------------------------------------------------

    def seed(self, history: History, now_s: float) -> None:
        """Start from what is settled; trades that came meanwhile follow it."""
        assert not self.seeded
        self._set_views(history)
        self.seeded = True
        for begun in self._begun.values():
            begun.clear()  # A snapshot will tell.
        for trade_id in [id for id in self._waiting if id <= self.tape.last_trade_id]:
            del self._waiting[trade_id]
        self._take_waiting()
        self._look_for_holes(now_s)

    def apply_trades(self, trades: Iterable[TradeLike], now_s: float) -> None:
        """Take in trades from Kafka or PostgreSQL, in any order, seen or not."""
        for trade in trades:
            if trade.trade_id <= self.tape.last_trade_id or trade.trade_id in self._waiting:
                metrics.repeats.labels("trades").inc()
            elif self.seeded and trade.trade_id == self.tape.last_trade_id + 1:
                self._append(trade)
            elif len(self._waiting) < MAX_WAITING:
                self._waiting[trade.trade_id] = trade
            else:
                self._known_trade_id = max(self._known_trade_id, trade.trade_id)
        self._take_waiting()
        self._look_for_holes(now_s)

    def _append(self, trade: TradeLike) -> None:
        self.tape.add(trade)
        self.hole_since_s = None  # Patience starts anew with each trade that comes.
        self._fresh.append(trade)
        self._count(trade)

    def _count(self, trade: TradeLike) -> None:
        self._ticker.add(trade)
        for interval, view in self.candles.items():
            self._begun[interval].add(view.fold(trade))

    def _take_waiting(self) -> None:
        while self.seeded and (trade := self._waiting.pop(self.tape.last_trade_id + 1, None)) is not None:
            self._append(trade)

    def _look_for_holes(self, now_s: float) -> None:
        if self.hole() is None:
            self.hole_since_s = None
        elif self.hole_since_s is None:
            self.hole_since_s = now_s

    def hole(self) -> tuple[int, int] | None:
        """The first and last id of trades that are known to exist and have not come."""
        if not self.seeded:
            return None
        first = self.tape.last_trade_id + 1
        last = min(self._waiting) - 1 if self._waiting else self._known_trade_id
        return (first, last) if first <= last else None

    def skip_hole(self, now_s: float) -> int:
        """Go on without the missing trades; how many they are."""
        hole = self.hole()
        if hole is None:
            return 0
        self.tape.last_trade_id = hole[1]
        self._take_waiting()
        self.hole_since_s = None
        self._look_for_holes(now_s)
        return hole[1] - hole[0] + 1

    def take_trades(self) -> list[TradeLike]:
        """What came since the last call, oldest first."""
        fresh, self._fresh = self._fresh, []
        return fresh

    def take_candles(self, interval_s: int) -> list[Candle]:
        """The candles that changed since the last call, oldest first."""
        begun = self._begun[interval_s]
        changed = self.candles[interval_s].newest(len(begun)) if begun else []
        begun.clear()
        return changed

    def ticker(self, now_us: int) -> Ticker:
        return self._ticker.at(now_us)
