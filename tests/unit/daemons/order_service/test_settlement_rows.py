"""What TX2 writes: each order as it was left last, its hold checked, and every row in its columns."""

from dataclasses import astuple, replace

import pytest

from common.arrays import Int2s, Int4s, Int8s
from common.core import messages as m
from daemons.order_service import settlement_rows as rows
from daemons.order_service.settlement import CannotSettle, check_holds

MARKET = m.Market(1, "BTC-USD", m.Asset(2, "BTC", 8), m.Asset(1, "USD", 8), 3, 10**6, 1_000, 0, 10, 20)
MARKETS = {1: MARKET}
# Five lots at 100 ticks: 5,000 base atoms for 5,000 quote atoms. 7 sells of order 70 to 8, whose order is 80.
TRADE = m.Trade(1, 1, 9, 100, 5, m.Side.BUY, 70, 80, 7, 8, 5, 10)
SELLER = m.OrderState(
    *(70, 7, 1, "", m.Side.SELL, m.OrderStatus.PARTIALLY_FILLED, m.Reason.NONE, 5, 5_000, 5, 2_000, 0, 9)
)
BUYER = m.OrderState(80, 8, 1, "", m.Side.BUY, m.OrderStatus.FILLED, m.Reason.NONE, 5, 5_000, 10, 0, 500, 9)
ENDED = replace(SELLER, status=m.OrderStatus.CANCELED, reason=m.Reason.USER_REQUEST, held_atoms=0)
HELD = {70: 7_000, 80: 5_500}


def settlements() -> list[m.Settlement]:
    """A trade, and in the next batch the end of the order that still held something."""
    return [
        m.Settlement(3, 9, 9, 11, bytes(32), bytes(32), 1, [TRADE], [BUYER, SELLER]),
        m.Settlement(3, 10, 10, 12, bytes(32), bytes(32), 1, [], [replace(ENDED, released_atoms=2_000)]),
    ]


def values(columns: rows.Columns) -> list[tuple[int, ...]]:
    return list(zip(*(column.values for column in columns), strict=True))


def test_each_order_stands_once_by_id_as_it_was_left_last() -> None:
    found = rows.rows_of(settlements(), MARKETS)
    assert found.order_ids.values == [70, 80]
    assert values(rows.order_columns(found.orders)) == [
        (70, m.OrderStatus.CANCELED, m.Reason.USER_REQUEST, 5, 5_000, 5, 0, 12),
        (80, m.OrderStatus.FILLED, m.Reason.NONE, 5, 5_000, 10, 0, 11),
    ]
    kinds = [type(column) for column in rows.order_columns(found.orders)]
    assert kinds == [Int8s, Int2s, Int2s, Int8s, Int8s, Int8s, Int8s, Int8s]


def test_each_account_stands_once_in_the_order_of_its_lock() -> None:
    found = rows.rows_of(settlements(), MARKETS)
    assert found.accounts == [(-4, 1), (-4, 2), (7, 1), (7, 2), (8, 1), (8, 2)]
    assert values(rows.account_keys(found.accounts)) == found.accounts
    assert values(rows.account_columns(found.moves.postings)) == [
        (-4, 1, 5, 0),
        (-4, 2, 10, 0),
        (7, 1, 4_995, 0),
        (7, 2, 2_000, -7_000),
        (8, 1, 500, -5_500),
        (8, 2, 4_990, 0),
    ]
    assert values(rows.ledger_columns(found.moves.postings)) == [
        (-4, 1, 5),
        (-4, 2, 10),
        (7, 1, 4_995),
        (7, 2, -5_000),
        (8, 1, -5_000),
        (8, 2, 4_990),
    ]


def test_trades_with_the_place_and_time_of_their_batch() -> None:
    market_id, trade_id, sequence, *amounts, side = astuple(TRADE)[:6]
    assert values(rows.trade_columns(settlements())) == [
        (market_id, trade_id, 3, sequence, 11, *amounts, side, *astuple(TRADE)[6:])
    ]
    kinds = [type(column) for column in rows.trade_columns([])]
    assert kinds == [Int4s, Int8s, Int4s, Int8s, Int8s, Int8s, Int8s, Int2s, *[Int8s] * 6]


def test_markets_as_they_were_left_last_and_all_digests() -> None:
    first, second = settlements()
    state = m.MarketState(1, m.MarketStatus.ACTIVE, 10, 20, 2, 100)
    first.markets = [m.MarketState(2, m.MarketStatus.HALTED, 1, 2, 3, 4), state]
    second.markets = [replace(state, status=m.MarketStatus.HALTED)]
    assert rows.market_rows(3, [first, second]) == [(1, 3, 2, 10, 20, 2, 100), (2, 3, 2, 1, 2, 3, 4)]
    first.digests, second.digests = [m.BookDigest(1, b"a")], [m.BookDigest(1, b"b"), m.BookDigest(2, b"c")]
    columns = rows.digest_columns([first, second])
    assert [column.values for column in columns] == [[9, 10, 10], [1, 1, 2], [b"a", b"b", b"c"]]


@pytest.mark.parametrize("held", [{70: 7_000}, {70: 7_001, 80: 5_500}, {70: 7_000, 80: 5_499}])
def test_holds_that_do_not_come_out_even(held: dict[int, int]) -> None:
    found = rows.rows_of(settlements(), MARKETS)
    check_holds(found, HELD)
    with pytest.raises(CannotSettle):
        check_holds(found, held)
