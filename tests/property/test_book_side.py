"""One side of a book against a dictionary of prices: best, totals and changes, however orders come and go."""

from random import Random
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from common.core import levels as levels_module
from common.core.levels import BookSide, Order
from common.core.messages import Side

Naive = dict[int, list[Order]]  # By price; empty lists are prices that were there.


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.sampled_from((1, -1)), st.integers(1, 30))
def test_a_side_knows_its_best_and_its_changes(seed: int, sign: int, prices: int) -> None:
    with patch.object(levels_module, "_COMPACT_ABOVE", 3):  # So that levels are forgotten and come again.
        _come_and_go(Random(seed), sign, prices)


def _come_and_go(random: Random, sign: int, prices: int) -> None:
    side, naive = BookSide(sign), Naive()
    told: dict[int, int] = {}
    arriving = 0.5
    for number in range(1, 200):
        if random.random() < 0.05:
            arriving = random.choice((0.2, 0.5, 0.8))  # So that sides run empty and fill up.
        resting = [order for orders in naive.values() for order in orders]
        if not resting or random.random() < arriving:
            order = Order(number, 1, 1, "", Side.BUY, random.randint(1, prices), number, 0, number)
            side.append(order)
            naive.setdefault(order.price_ticks, []).append(order)
        else:
            order = random.choice(resting)
            side.remove(order)
            naive[order.price_ticks].remove(order)
        _same(side, naive, sign)
        if random.random() < 0.3:
            changes = side.take_changes()
            assert [price for price, _ in changes] == sorted({p for p, _ in changes}, key=lambda p: p * sign)
            assert all(lots == _total(naive, price) for price, lots in changes)
            told |= dict(changes)
            assert {p: lots for p, lots in told.items() if lots} == {
                p: _total(naive, p) for p in naive if naive[p]
            }


def _same(side: BookSide, naive: Naive, sign: int) -> None:
    prices = sorted((price for price, orders in naive.items() if orders), key=lambda price: price * sign)
    best = side.best()
    assert (None if best is None else best.price_ticks) == (prices[0] if prices else None)
    assert side.totals() == [(price, _total(naive, price)) for price in prices]
    assert [level.price_ticks for level in side.best_first()] == prices
    assert list(side.orders()) == [order for price in sorted(prices) for order in naive[price]]


def _total(naive: Naive, price: int) -> int:
    return sum(order.left_lots for order in naive.get(price, ()))
