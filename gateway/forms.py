"""What orders of one kind in one market have in common, prepared once and kept with the market's table.

A form answers only what is certain at little cost. For everything else it says "no", and `common.core`
decides, and finds the words for what is wrong; so the two can differ in speed alone.
"""

import re
from typing import cast

from common.core.messages import Market, OrderType, SelfTradePrevention, Side, TimeInForce
from common.core.orders import check_order
from common.core.units import MAX_INT64, price_from_text, qty_from_text
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty

# Names as a body has them: symbol, side, type, time_in_force, post_only, stp.
FormKey = tuple[str, str, str, str | None, bool | None, str | None]

_MOST_DIGITS = 19  # Of a text that is read here; a longer one goes to `common.core.units`.
_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class Steps:
    """Reads decimal texts as whole steps of `step_atoms`, of which one unit has 10**scale."""

    __slots__ = ("_atoms_of_last_decimal", "_decimals", "_tens")

    def __init__(self, step_atoms: int, scale: int) -> None:
        while scale > 0 and step_atoms % 10 == 0:
            step_atoms //= 10
            scale -= 1
        self._atoms_of_last_decimal = step_atoms
        self._decimals = scale
        self._tens = tuple(10 ** (scale - decimals) for decimals in range(scale + 1))

    def of(self, text: str) -> int:
        """The steps of a plain, positive, exact multiple such as "1.50"; 0 for all that may be wrong."""
        if len(text) > _MOST_DIGITS:
            return 0
        whole, point, fraction = text.partition(".")
        digits = whole + fraction
        if not digits.isdigit() or not digits.isascii() or not whole or (point and not fraction):
            return 0
        if len(fraction) > self._decimals:
            return 0
        steps, rest = divmod(int(digits) * self._tens[len(fraction)], self._atoms_of_last_decimal)
        return steps if rest == 0 and steps <= MAX_INT64 else 0


class Form:
    """All of an order but its amounts and its client_order_id."""

    def __init__(self, market: Market, key: FormKey) -> None:
        _, side, type_, time_in_force, post_only, stp = key
        self.market = market
        self.side, self.type = Side[side], OrderType[type_]
        self.time_in_force = TimeInForce[time_in_force or ("GTC" if type_ == "LIMIT" else "IOC")]
        self.post_only = post_only or False
        self._prices = Steps(market.tick_atoms, market.quote.scale)
        self._quantities = Steps(market.lot_atoms, market.base.scale)
        # An ordinary limit order that keeps to these bounds is right.
        self._ordinary = self.type is OrderType.LIMIT and (
            not self.post_only or self.time_in_force is TimeInForce.GTC
        )
        atoms = market.atoms_per_tick_lot
        self._least_tick_lots = max(1, -(-market.min_notional_atoms // atoms))
        self._most_tick_lots = MAX_INT64 // atoms
        self._most_lots = MAX_INT64 // market.lot_atoms
        self._blank = pb.NewOrder(
            symbol=market.symbol,
            side=cast(ty.Side.ValueType, self.side.value),
            type=cast(ty.OrderType.ValueType, self.type.value),
            time_in_force=cast(ty.TimeInForce.ValueType, self.time_in_force.value),
            post_only=self.post_only,
            stp=cast(ty.SelfTradePrevention.ValueType, SelfTradePrevention[stp or "CANCEL_TAKER"].value),
        )

    def price_ticks(self, text: str) -> int:
        """Raises InvalidPrice."""
        return self._prices.of(text) or price_from_text(self.market, text)

    def qty_lots(self, text: str) -> int:
        """Raises InvalidQuantity."""
        return self._quantities.of(text) or qty_from_text(self.market, text)

    def filled(self, price_ticks: int, qty_lots: int, quote_atoms: int, client_order_id: str) -> pb.NewOrder:
        """The order with these amounts, 0 for what it does not have; raises what `check_order` raises."""
        if not (
            self._ordinary
            and quote_atoms == 0
            and 0 < price_ticks <= MAX_INT64
            and 0 < qty_lots <= self._most_lots
            and self._least_tick_lots <= price_ticks * qty_lots <= self._most_tick_lots
            and (not client_order_id or _CLIENT_ORDER_ID.fullmatch(client_order_id))
        ):
            check_order(
                self.market, side=self.side, type=self.type, time_in_force=self.time_in_force,
                post_only=self.post_only, price_ticks=price_ticks, qty_lots=qty_lots,
                quote_atoms=quote_atoms, client_order_id=client_order_id,
            )  # fmt: skip
        order = pb.NewOrder()
        order.CopyFrom(self._blank)  # A third of the price of naming all fields.
        order.price_ticks = price_ticks
        order.qty_lots = qty_lots
        if quote_atoms:
            order.quote_atoms = quote_atoms
        if client_order_id:
            order.client_order_id = client_order_id
        return order
