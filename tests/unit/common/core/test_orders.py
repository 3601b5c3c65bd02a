from typing import Any

import pytest

from common.core.errors import (
    InvalidOrder,
    InvalidPrice,
    InvalidQuantity,
    Malformed,
    NoReferencePrice,
    NotionalTooLarge,
    NotionalTooSmall,
)
from common.core.messages import Asset, Market, OrderType, Side, TimeInForce
from common.core.orders import check_order, hold_for
from common.core.units import MAX_INT64

MARKET = Market(1, "BTC-USD", Asset(2, "BTC", 8), Asset(1, "USD", 8), 0, 1_000_000, 1_000, 10**8, 10, 20)
LIMIT: dict[str, Any] = {
    "side": Side.BUY,
    "type": OrderType.LIMIT,
    "time_in_force": TimeInForce.GTC,
    "post_only": False,
    "price_ticks": 10_000,
    "qty_lots": 100_000,
    "quote_atoms": 0,
    "client_order_id": "",
}
TAKE: dict[str, Any] = LIMIT | {"type": OrderType.MARKET, "time_in_force": TimeInForce.IOC, "price_ticks": 0}
SPEND: dict[str, Any] = TAKE | {"qty_lots": 0, "quote_atoms": 10**8}
SELL = {"side": Side.SELL}


@pytest.mark.parametrize(
    "order",
    [
        LIMIT,
        LIMIT | {"post_only": True},
        LIMIT | {"time_in_force": TimeInForce.FOK},
        LIMIT | SELL,
        LIMIT | {"qty_lots": 1_000},  # Exactly the least notional.
        LIMIT | {"client_order_id": "a-B.9_:" + "x" * 57},
        TAKE,
        TAKE | SELL,
        TAKE | {"time_in_force": TimeInForce.FOK},
        SPEND,
    ],
)
def test_orders_that_are_right_pass(order: dict[str, Any]) -> None:
    check_order(MARKET, **order)


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (LIMIT | {"price_ticks": 0}, InvalidPrice),
        (LIMIT | {"price_ticks": -1}, InvalidPrice),
        (LIMIT | {"price_ticks": MAX_INT64 + 1}, InvalidPrice),
        (LIMIT | {"qty_lots": 0}, InvalidQuantity),
        (LIMIT | {"qty_lots": -5}, InvalidQuantity),
        (LIMIT | SELL | {"qty_lots": MAX_INT64 // 1_000 + 1}, InvalidQuantity),
        (LIMIT | {"quote_atoms": 1}, InvalidOrder),
        (LIMIT | {"post_only": True, "time_in_force": TimeInForce.IOC}, InvalidOrder),
        (LIMIT | {"qty_lots": 999}, NotionalTooSmall),
        (LIMIT | {"price_ticks": MAX_INT64 // 100_000 // 10 + 1}, NotionalTooLarge),
        (LIMIT | {"client_order_id": "x" * 65}, Malformed),
        (LIMIT | {"client_order_id": "no spaces"}, Malformed),
        (LIMIT | {"client_order_id": "line\n"}, Malformed),
        (TAKE | {"price_ticks": 1}, InvalidOrder),
        (TAKE | {"post_only": True}, InvalidOrder),
        (TAKE | {"time_in_force": TimeInForce.GTC}, InvalidOrder),
        (TAKE | {"qty_lots": 0}, InvalidQuantity),
        (SPEND | SELL, InvalidOrder),
        (SPEND | {"qty_lots": 1}, InvalidOrder),
        (SPEND | {"quote_atoms": -1}, InvalidQuantity),
        (SPEND | {"quote_atoms": 10**8 - 1}, NotionalTooSmall),
        (SPEND | {"quote_atoms": MAX_INT64 + 1}, NotionalTooLarge),
    ],
)
def test_orders_that_are_wrong_are_refused_for_their_cause(
    order: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        check_order(MARKET, **order)
    assert type(refused.value) is error


def hold(order: dict[str, Any], last_price_ticks: int = 0) -> tuple[int, int]:
    names = ("side", "type", "price_ticks", "qty_lots", "quote_atoms")
    return hold_for(MARKET, last_price_ticks=last_price_ticks, **{name: order[name] for name in names})


def test_holds() -> None:
    assert hold(LIMIT) == (1, 10_000 * 100_000 * 10)
    assert hold(LIMIT | SELL) == (2, 10**8)
    assert hold(TAKE | SELL) == (2, 10**8)
    assert hold(SPEND) == (1, 10**8)


def test_a_market_buy_by_quantity_holds_five_percent_more_rounded_up() -> None:
    assert hold(TAKE | {"qty_lots": 1}, 1) == (1, 11)  # 10.5 atoms
    with pytest.raises(NoReferencePrice):
        hold(TAKE)
    with pytest.raises(NotionalTooLarge):
        hold(TAKE, MAX_INT64 // 1_000_000)
