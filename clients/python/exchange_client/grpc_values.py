"""Between the client's values and the whole numbers of the exchange's gRPC; pure.

On the wire a price is ticks, a quantity lots, money atoms of an asset, a time microseconds since 1970.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from exchange_client.errors import InvalidPrice, InvalidQuantity, Refusal, UnknownSymbol, refusal
from exchange_client.values import Accepted, Amount, LimitOrder, NewOrder

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Units:
    """The units of all markets, from a ListMarkets answer."""

    def __init__(self, answer: Any) -> None:
        self._markets = {market.symbol: market for market in answer.markets}

    def fill(self, message: Any, order: NewOrder) -> None:
        """Write the order into a NewOrder message. Raises UnknownSymbol, InvalidPrice or InvalidQuantity, as
        the exchange would."""
        market = self._markets.get(order.symbol)
        if market is None:
            raise UnknownSymbol("UNKNOWN_SYMBOL", "There is no such market.", {"symbol": order.symbol})
        message.symbol = order.symbol
        message.side = f"SIDE_{order.side}"
        message.stp = f"SELF_TRADE_PREVENTION_{order.stp}"
        message.client_order_id = order.client_order_id
        if order.quantity is not None:
            message.qty_lots = _whole(order.quantity, market.base.scale, market.lot_atoms, _no_lots)
        if isinstance(order, LimitOrder):
            message.type = "ORDER_TYPE_LIMIT"
            message.time_in_force = f"TIME_IN_FORCE_{order.time_in_force}"
            message.post_only = order.post_only
            message.price_ticks = _whole(order.price, market.quote.scale, market.tick_atoms, _no_ticks)
        else:
            message.type = "ORDER_TYPE_MARKET"
            if order.quote_quantity is not None:
                message.quote_atoms = _whole(order.quote_quantity, market.quote.scale, 1, _no_lots)


def accepted_of(message: Any) -> Accepted:
    return Accepted(
        order_id=str(message.order_id),
        symbol=message.symbol,
        sequence=message.sequence,
        created_at=_EPOCH + timedelta(microseconds=message.created_us),
        client_order_id=message.client_order_id or None,
        repeated=message.repeated,
    )


def result_of(message: Any) -> Accepted | Refusal:
    """One result of a batch."""
    return error_of(message.error) if message.HasField("error") else accepted_of(message.accepted)


def error_of(message: Any, status: int = 0) -> Refusal:
    """`status` is what a code means that is not known here."""
    details = {detail.key: detail.value for detail in message.details}
    return refusal(message.code, message.message, details, status=status)


def _whole(amount: Amount, scale: int, step_atoms: int, wrong: Callable[[Amount], Refusal]) -> int:
    steps = Decimal(amount).scaleb(scale) / step_atoms
    if steps != steps.to_integral_value() or not 0 < steps < 1 << 63:
        raise wrong(amount)
    return int(steps)


def _no_ticks(amount: Amount) -> Refusal:
    return InvalidPrice("INVALID_PRICE", f"{amount} is no positive multiple of the tick")


def _no_lots(amount: Amount) -> Refusal:
    return InvalidQuantity("INVALID_QUANTITY", f"{amount} is no positive multiple of the lot")
