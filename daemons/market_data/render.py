"""What frames carry, as numbers, and its text as API.md shows it; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.core import views
from common.core.messages import Market, OrderStatus, Reason, Side
from common.core.units import atoms_to_text, price_to_text, qty_to_text, time_to_text
from common.core.views import Candle, Level, TradeLike
from common.shown import Ticker, candle_json, fill_json, ticker_json, trade_json
from common.socket_messages import Depth, LiveOrder, OrderUpdate
from exchange.v1 import events_pb2, orders_pb2, types_pb2


@dataclass(slots=True)
class DepthBody:
    """Levels of a book, or what changed of them; best first in a snapshot."""

    market: Market
    bids: Sequence[Level]
    asks: Sequence[Level]

    @property
    def weight(self) -> int:
        return 28 * (len(self.bids) + len(self.asks))

    def to_json(self) -> Depth:
        return Depth(_levels(self.market, self.bids), _levels(self.market, self.asks))


@dataclass(slots=True)
class TradesBody:
    """Oldest first."""

    market: Market
    trades: Sequence[TradeLike]

    @property
    def weight(self) -> int:
        return 150 * len(self.trades)

    def to_json(self) -> object:
        return [trade_json(self.market, trade) for trade in self.trades]


@dataclass(slots=True)
class KlinesBody:
    """Oldest first."""

    market: Market
    candles: Sequence[Candle]

    @property
    def weight(self) -> int:
        return 200 * len(self.candles)

    def to_json(self) -> object:
        return [candle_json(self.market, candle) for candle in self.candles]


@dataclass(slots=True)
class TickerBody:
    market: Market
    ticker: views.Ticker
    bid_ticks: int
    ask_ticks: int

    @property
    def weight(self) -> int:
        return 300

    def to_json(self) -> Ticker:
        return ticker_json(self.market, self.ticker, bid_ticks=self.bid_ticks, ask_ticks=self.ask_ticks)


@dataclass(slots=True)
class Plain:
    """What is JSON already; its weight is measured by whoever made it."""

    data: object
    weight: int

    def to_json(self) -> object:
        return self.data


def _levels(market: Market, levels: Sequence[Level]) -> list[tuple[str, ...]]:
    return [(price_to_text(market, price), qty_to_text(market, qty)) for price, qty in levels]


def order_to_json(market: Market, order: orders_pb2.Order) -> LiveOrder:
    """An order of a snapshot: what an update tells, and what it was placed with."""
    side, reason = Side(order.side), Reason(order.reason)
    priced = order.type == types_pb2.ORDER_TYPE_LIMIT
    return LiveOrder(
        order_id=str(order.order_id),
        client_order_id=order.client_order_id or None,
        symbol=market.symbol,
        side=side.name,
        type=types_pb2.OrderType.Name(order.type).removeprefix("ORDER_TYPE_"),
        price=price_to_text(market, order.price_ticks) if priced else None,
        quantity=qty_to_text(market, order.qty_lots) if order.qty_lots else None,
        status=OrderStatus(order.status).name,
        reason=None if reason is Reason.NONE else reason.name,
        filled_quantity=qty_to_text(market, order.filled_lots),
        filled_quote=atoms_to_text(market.quote, order.filled_quote_atoms),
        fee=_fee(market, side, order.fee_atoms),
        last_fill=None,
        sequence=order.sequence,
        time=time_to_text(order.updated_us),
    )


def order_update_to_json(market: Market, update: events_pb2.UserOrderUpdate, time_us: int) -> OrderUpdate:
    """An order as a settlement left it."""
    state = update.state
    side, reason = Side(state.side), Reason(state.reason)
    return OrderUpdate(
        order_id=str(state.order_id),
        client_order_id=state.client_order_id or None,
        symbol=market.symbol,
        side=side.name,
        status=OrderStatus(state.status).name,
        reason=None if reason is Reason.NONE else reason.name,
        filled_quantity=qty_to_text(market, state.filled_lots),
        filled_quote=atoms_to_text(market.quote, state.filled_quote_atoms),
        fee=_fee(market, side, state.fee_atoms),
        last_fill=fill_json(market, update.fills[-1]) if update.fills else None,
        sequence=state.sequence,
        time=time_to_text(time_us),
    )


def _fee(market: Market, side: Side, atoms: int) -> str:
    return atoms_to_text(market.base if side is Side.BUY else market.quote, atoms)
