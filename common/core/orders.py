"""What an order must look like, and how much it holds: decided by TX1 before anything is written.

Not decided here: whether the market is halted (the engine knows, at the command's place in the
sequence) and whether the owner has the funds (TX1 knows, under the account's lock).
"""

import re

from common.core.errors import (
    InvalidOrder,
    InvalidPrice,
    InvalidQuantity,
    Malformed,
    NoReferencePrice,
    NotionalTooLarge,
    NotionalTooSmall,
)
from common.core.messages import Market, OrderType, Side, TimeInForce
from common.core.units import MAX_INT64

# A market buy by quantity holds this much more than the last price asks for (DESIGN I10).
_MARKET_HOLD_PERCENT = 105
_CLIENT_ORDER_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def check_order(
    market: Market,
    *,
    side: Side,
    type: OrderType,
    time_in_force: TimeInForce,
    post_only: bool,
    price_ticks: int,
    qty_lots: int,
    quote_atoms: int,
    client_order_id: str,
) -> None:
    """Refuse an order that could not be right in this market.

    Raises InvalidPrice, InvalidQuantity, InvalidOrder, NotionalTooSmall, NotionalTooLarge, or
    Malformed for the client_order_id (empty: none). The least notional of a market order by
    quantity is not checked: its price is not known.
    """
    if client_order_id and _CLIENT_ORDER_ID.fullmatch(client_order_id) is None:
        why = "must be 1 to 64 of A-Z a-z 0-9 . _ : -"
        raise Malformed(f"client_order_id {why}", {"client_order_id": why})
    if type is OrderType.LIMIT:
        _check_limit(market, time_in_force, post_only, price_ticks, qty_lots, quote_atoms)
    else:
        _check_market_order(market, side, time_in_force, post_only, price_ticks, qty_lots, quote_atoms)


def _check_limit(
    market: Market,
    time_in_force: TimeInForce,
    post_only: bool,
    price_ticks: int,
    qty_lots: int,
    quote_atoms: int,
) -> None:
    if not 0 < price_ticks <= MAX_INT64:
        raise InvalidPrice(details={"price": "must be greater than 0 and fit into 64 bits of ticks"})
    if quote_atoms != 0:
        raise InvalidOrder("quote_quantity is for market buys", {"quote_quantity": "not for a LIMIT order"})
    if post_only and time_in_force is not TimeInForce.GTC:
        raise InvalidOrder("post_only needs time_in_force GTC", {"post_only": "needs time_in_force GTC"})
    _check_qty(market, qty_lots)
    _check_notional(market, price_ticks * qty_lots * market.atoms_per_tick_lot)


def _check_market_order(
    market: Market,
    side: Side,
    time_in_force: TimeInForce,
    post_only: bool,
    price_ticks: int,
    qty_lots: int,
    quote_atoms: int,
) -> None:
    if price_ticks != 0:
        raise InvalidOrder("a MARKET order has no price", {"price": "not for a MARKET order"})
    if post_only:
        raise InvalidOrder("a MARKET order cannot be post_only", {"post_only": "not for a MARKET order"})
    if time_in_force is TimeInForce.GTC:
        raise InvalidOrder("a MARKET order is IOC or FOK", {"time_in_force": "IOC or FOK for a MARKET order"})
    if quote_atoms == 0:
        _check_qty(market, qty_lots)
        return
    if side is not Side.BUY:
        raise InvalidOrder("quote_quantity is for market buys", {"quote_quantity": "not for a SELL"})
    if qty_lots != 0:
        raise InvalidOrder(
            "give quantity or quote_quantity", {"quote_quantity": "not together with quantity"}
        )
    if quote_atoms < 0:
        raise InvalidQuantity(details={"quote_quantity": "must be greater than 0"})
    _check_notional(market, quote_atoms)


def _check_qty(market: Market, qty_lots: int) -> None:
    if qty_lots <= 0:
        raise InvalidQuantity(details={"quantity": "must be greater than 0"})
    if qty_lots * market.lot_atoms > MAX_INT64:
        raise InvalidQuantity(details={"quantity": "is too large"})


def _check_notional(market: Market, notional_atoms: int) -> None:
    if notional_atoms > MAX_INT64:
        raise NotionalTooLarge()
    if notional_atoms < market.min_notional_atoms:
        raise NotionalTooSmall(details={"min_notional_atoms": str(market.min_notional_atoms)})


def hold_for(
    market: Market,
    *,
    side: Side,
    type: OrderType,
    price_ticks: int,
    qty_lots: int,
    quote_atoms: int,
    last_price_ticks: int,
) -> tuple[int, int]:
    """The asset that an order pays with, and how many of its atoms to hold, for a checked order.

    A market buy by quantity holds 105 % of quantity times last price, rounded up; it raises
    NoReferencePrice while nothing has traded and NotionalTooLarge past 64 bits.
    """
    if side is Side.SELL:
        return market.base.asset_id, qty_lots * market.lot_atoms
    if type is OrderType.LIMIT:
        return market.quote.asset_id, price_ticks * qty_lots * market.atoms_per_tick_lot
    if quote_atoms > 0:
        return market.quote.asset_id, quote_atoms
    if last_price_ticks == 0:
        raise NoReferencePrice()
    notional_atoms = last_price_ticks * qty_lots * market.atoms_per_tick_lot
    hold_atoms = (notional_atoms * _MARKET_HOLD_PERCENT + 99) // 100
    if hold_atoms > MAX_INT64:
        raise NotionalTooLarge()
    return market.quote.asset_id, hold_atoms
