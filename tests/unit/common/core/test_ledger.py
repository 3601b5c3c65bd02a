from dataclasses import replace

import pytest

from common.core.ledger import LedgerEntry, Posting, fee_user_id, ledger_entries, postings
from common.core.messages import (
    GENESIS_CHAIN,
    Asset,
    Market,
    OrderState,
    OrderStatus,
    Reason,
    Settlement,
    Side,
    Trade,
)

USD, BTC = 1, 2
MARKET = Market(1, "BTC-USD", Asset(BTC, "BTC", 8), Asset(USD, "USD", 8), 3, 1_000_000, 1_000, 0, 10, 20)
# Five lots at 100 ticks: 5,000 base atoms for 5,000 quote atoms. 7 sells to 8, who takes.
TRADE = Trade(1, 1, 9, 100, 5, Side.BUY, 70, 80, 7, 8, 5, 10)
RELEASE = OrderState(
    80, 8, 1, "", Side.BUY, OrderStatus.FILLED, Reason.NONE, 5, 5_000, 10, 0, 500, 9
)  # fmt: skip
EMPTY = Settlement(3, 9, 9, 1, GENESIS_CHAIN, GENESIS_CHAIN, 1)


def test_a_trade_moves_both_assets_and_the_fees() -> None:
    assert postings(replace(EMPTY, trades=[TRADE], orders=[RELEASE]), {1: MARKET}) == [
        Posting(-4, USD, 5, 0),
        Posting(-4, BTC, 10, 0),
        Posting(7, USD, 4_995, 0),
        Posting(7, BTC, 0, -5_000),
        Posting(8, USD, 500, -5_500),
        Posting(8, BTC, 4_990, 0),
    ]


def test_when_the_seller_takes_the_fees_change_sides() -> None:
    moved = postings(replace(EMPTY, trades=[replace(TRADE, taker_side=Side.SELL)]), {1: MARKET})
    assert Posting(7, BTC, 4_995, 0) in moved
    assert Posting(8, USD, 4_990, 0) in moved


def test_the_ledger_holds_what_changed_owner() -> None:
    moved = postings(replace(EMPTY, trades=[TRADE], orders=[RELEASE]), {1: MARKET})
    assert ledger_entries(moved) == [
        LedgerEntry(-4, USD, 5),
        LedgerEntry(-4, BTC, 10),
        LedgerEntry(7, USD, 4_995),
        LedgerEntry(7, BTC, -5_000),
        LedgerEntry(8, USD, -5_000),
        LedgerEntry(8, BTC, 4_990),
    ]


def test_a_release_changes_no_owner() -> None:
    moved = postings(replace(EMPTY, orders=[replace(RELEASE, side=Side.SELL)]), {1: MARKET})
    assert moved == [Posting(8, BTC, 500, -500)]
    assert ledger_entries(moved) == []


def test_accounts_that_end_as_they_were_are_left_out() -> None:
    free = replace(MARKET, maker_fee_bps=0, taker_fee_bps=0)
    there = replace(TRADE, maker_fee_atoms=0, taker_fee_atoms=0)
    assert all(one.user_id > 0 for one in postings(replace(EMPTY, trades=[there]), {1: free}))


def test_an_unknown_market_is_an_error() -> None:
    with pytest.raises(KeyError):
        postings(replace(EMPTY, trades=[TRADE]), {})


def test_fee_users_are_apart_from_people_and_from_the_outside() -> None:
    assert [fee_user_id(partition) for partition in (0, 1, 2)] == [-1, -2, -3]
