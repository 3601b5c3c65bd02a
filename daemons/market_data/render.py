"""What frames carry, as numbers, and its text as API.md shows it; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.core.messages import Market, OrderStatus, Reason, Side
from common.core.units import atoms_to_text, price_to_text, qty_to_text, time_to_text
from common.core.views import Candle, Level, Ticker, TradeLike
from common.shown import candle_json, fill_json, ticker_json, trade_json
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

    def to_json(self) -> object:
        return {"bids": _levels(self.market, self.bids), "asks": _levels(self.market, self.asks)}


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
    ticker: Ticker
    bid_ticks: int
    ask_ticks: int

    @property
    def weight(self) -> int:
        return 300

    def to_json(self) -> dict[str, object]:
        return ticker_json(self.market, self.ticker, bid_ticks=self.bid_ticks, ask_ticks=self.ask_ticks)


@dataclass(slots=True)
class Plain:
    """What is JSON already; its weight is measured by whoever made it."""

    data: object
    weight: int

    def to_json(self) -> object:
        return self.data


def _levels(market: Market, levels: Sequence[Level]) -> list[tuple[str, str]]:
    return [(price_to_text(market, price), qty_to_text(market, qty)) for price, qty in levels]


def order_to_json(market: Market, order: orders_pb2.Order) -> dict[str, object]:
    """An order of a snapshot: what an update tells, and what it was placed with."""
    told = _order(
        market,
        order.order_id,
        order.client_order_id,
        Side(order.side),
        (order.status, order.reason),
        (order.filled_lots, order.filled_quote_atoms, order.fee_atoms),
    )
    priced = order.type == types_pb2.ORDER_TYPE_LIMIT
    return told | {
        "type": types_pb2.OrderType.Name(order.type).removeprefix("ORDER_TYPE_"),
        "price": price_to_text(market, order.price_ticks) if priced else None,
        "quantity": qty_to_text(market, order.qty_lots) if order.qty_lots else None,
        "last_fill": None,
        "sequence": order.sequence,
        "time": time_to_text(order.updated_us),
    }


def order_update_to_json(
    market: Market, update: events_pb2.UserOrderUpdate, time_us: int
) -> dict[str, object]:
    """An order as a settlement left it."""
    state = update.state
    told = _order(
        market,
        state.order_id,
        state.client_order_id,
        Side(state.side),
        (state.status, state.reason),
        (state.filled_lots, state.filled_quote_atoms, state.fee_atoms),
    )
    return told | {
        "last_fill": fill_json(market, update.fills[-1]) if update.fills else None,
        "sequence": state.sequence,
        "time": time_to_text(time_us),
    }


def _order(
    market: Market,
    order_id: int,
    client_order_id: str,
    side: Side,
    status: tuple[int, int],
    filled: tuple[int, int, int],
) -> dict[str, object]:
    """`status`: status and reason; `filled`: lots, quote atoms, and atoms of the fee."""
    reason = Reason(status[1])
    return {
        "order_id": str(order_id),
        "client_order_id": client_order_id or None,
        "symbol": market.symbol,
        "side": side.name,
        "status": OrderStatus(status[0]).name,
        "reason": None if reason is Reason.NONE else reason.name,
        "filled_quantity": qty_to_text(market, filled[0]),
        "filled_quote": atoms_to_text(market.quote, filled[1]),
        "fee": atoms_to_text(market.base if side is Side.BUY else market.quote, filled[2]),
    }
