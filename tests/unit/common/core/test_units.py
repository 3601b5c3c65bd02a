from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import InvalidMarket, InvalidPrice, InvalidQuantity
from common.core.messages import Asset, Market
from common.core.units import (
    MAX_INT64,
    atoms_from_text,
    atoms_to_text,
    check_market,
    price_from_text,
    price_to_text,
    qty_from_text,
    qty_to_text,
    time_to_text,
)

USD, BTC = Asset(1, "USD", 8), Asset(2, "BTC", 8)
MARKET = Market(1, "BTC-USD", BTC, USD, 0, 1_000_000, 1_000, 10**8, 10, 20)
REFUSED = (
    "",
    " ",
    "0",
    "0.0",
    "-1",
    "+1",
    "1e5",
    "NaN",
    "Infinity",
    ".5",
    "5.",
    "1,5",
    "1\n",
    "٣",
    "0x1",
    "1" * 40,
)


def test_texts_keep_the_decimals_of_tick_and_lot() -> None:
    assert price_to_text(MARKET, 10_050) == "100.50"
    assert price_to_text(MARKET, 1) == "0.01"
    assert qty_to_text(MARKET, 1) == "0.00001"
    assert qty_to_text(MARKET, 100_000) == "1.00000"
    assert price_to_text(replace(MARKET, tick_atoms=10**8), 7) == "7"
    assert price_to_text(replace(MARKET, tick_atoms=25 * 10**8), 2) == "50"


def test_atoms_lose_trailing_zeros_and_keep_their_sign() -> None:
    assert atoms_to_text(USD, 50_000_000) == "0.5"
    assert atoms_to_text(USD, 100 * 10**8) == "100"
    assert atoms_to_text(USD, -1) == "-0.00000001"
    assert atoms_to_text(USD, 0) == "0"
    assert atoms_to_text(Asset(9, "YEN", 0), 1_200) == "1200"


@given(st.integers(1, MAX_INT64))
def test_what_is_shown_is_read_back(count: int) -> None:
    assert price_from_text(MARKET, price_to_text(MARKET, count)) == count
    assert qty_from_text(MARKET, qty_to_text(MARKET, count)) == count
    assert atoms_from_text(USD, atoms_to_text(USD, count)) == count


def test_trailing_and_leading_zeros_are_read() -> None:
    assert price_from_text(MARKET, "0100.5000000000000") == 10_050
    assert qty_from_text(MARKET, "1") == 100_000


@pytest.mark.parametrize("text", [*REFUSED, "0.001", "0.015", "0.000000001", "99999999999999999999"])
def test_bad_prices_are_refused_by_field(text: str) -> None:
    with pytest.raises(InvalidPrice) as refused:
        price_from_text(MARKET, text)
    assert set(refused.value.details) == {"price"}


@pytest.mark.parametrize("text", [*REFUSED, "0.000001", "99999999999999999999"])
def test_bad_quantities_are_refused_by_field(text: str) -> None:
    with pytest.raises(InvalidQuantity) as refused:
        qty_from_text(MARKET, text)
    assert set(refused.value.details) == {"quantity"}


@pytest.mark.parametrize("text", [*REFUSED, "0.000000001", "99999999999999999999"])
def test_bad_amounts_are_refused(text: str) -> None:
    with pytest.raises(InvalidQuantity):
        atoms_from_text(USD, text)


def test_a_million_digits_cost_nothing() -> None:
    with pytest.raises(InvalidPrice, match="too many digits"):
        price_from_text(MARKET, "1" * 1_000_000)


def test_the_largest_price_fits_and_the_next_does_not() -> None:
    assert price_from_text(MARKET, "92233720368547758.07") == MAX_INT64
    with pytest.raises(InvalidPrice, match="too large"):
        price_from_text(MARKET, "92233720368547758.08")


def test_times_are_rfc_3339_with_microseconds() -> None:
    assert time_to_text(0) == "1970-01-01T00:00:00.000000Z"
    assert time_to_text(1_767_323_045_000_006) == "2026-01-02T03:04:05.000006Z"


@pytest.mark.parametrize(
    "wrong",
    [
        replace(MARKET, tick_atoms=1, lot_atoms=1),
        replace(MARKET, tick_atoms=0),
        replace(MARKET, lot_atoms=-1),
        replace(MARKET, tick_atoms=MAX_INT64 + 1),
        replace(MARKET, tick_atoms=10**18, lot_atoms=10**18),
        replace(MARKET, quote=BTC),
        replace(MARKET, min_notional_atoms=-1),
        replace(MARKET, maker_fee_bps=-1),
        replace(MARKET, taker_fee_bps=5_001),
    ],
)
def test_markets_that_cannot_work_are_refused(wrong: Market) -> None:
    check_market(MARKET)
    with pytest.raises(InvalidMarket):
        check_market(wrong)
