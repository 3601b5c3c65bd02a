from hypothesis import given
from hypothesis import strategies as st

from common.core.messages import Side
from common.core.views import PublicTrade, Ticker, Ticker24h, aggregate

MINUTE_US = 60_000_000
DAY_US = 86_400 * 10**6


def trade(time_us: int, price_ticks: int, qty_lots: int = 1) -> PublicTrade:
    return PublicTrade(1, 1, price_ticks, qty_lots, Side.BUY, time_us)


def test_nothing_has_traded() -> None:
    assert Ticker24h(10).at(DAY_US) == Ticker(0, 0, 0, 0, 0, 0, 0)
    assert Ticker24h(10, last_ticks=5).at(DAY_US) == Ticker(5, 0, 0, 0, 0, 0, 0)


def test_a_day_later_only_the_last_price_is_left() -> None:
    ticker = Ticker24h(10)
    ticker.add(trade(0, 100))
    ticker.add(trade(MINUTE_US, 90, 2))
    assert ticker.at(2 * MINUTE_US) == Ticker(90, 100, 100, 90, 3, 2_800, 2)
    assert ticker.at(DAY_US + MINUTE_US) == Ticker(90, 90, 90, 90, 2, 1_800, 1)
    assert ticker.at(DAY_US + 2 * MINUTE_US) == Ticker(90, 0, 0, 0, 0, 0, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3 * DAY_US), st.integers(1, 50), st.integers(1, 9)), min_size=1),
    st.integers(0, DAY_US),
    st.integers(0, 20),
)
def test_it_is_the_sum_of_the_trades_in_the_window(
    rows: list[tuple[int, int, int]], later_us: int, stored: int
) -> None:
    """Some trades come as stored candles, the rest one by one, with a reading after each."""
    trades = [trade(*row) for row in sorted(rows, key=lambda row: row[0])]
    ticker = Ticker24h(10, minutes=aggregate(trades[:stored], 60, 10))
    for one in trades[stored:]:
        ticker.add(one)
        ticker.at(one.time_us)
    now_us = trades[-1].time_us + later_us
    starts_us = (now_us - DAY_US) // MINUTE_US * MINUTE_US
    within = [one for one in trades if one.time_us >= starts_us]
    prices = [one.price_ticks for one in within] or [0]
    assert ticker.at(now_us) == Ticker(
        trades[-1].price_ticks,
        prices[0],
        max(prices),
        min(prices),
        sum(one.qty_lots for one in within),
        sum(one.qty_lots * one.price_ticks * 10 for one in within),
        len(within),
    )
