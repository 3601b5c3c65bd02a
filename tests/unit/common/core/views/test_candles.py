from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from common.core.messages import Side
from common.core.views import INTERVALS_S, Candle, CandleView, PublicTrade, aggregate, roll_up

MINUTE_US = 60_000_000


def trade(time_us: int, price_ticks: int = 100, qty_lots: int = 1) -> PublicTrade:
    return PublicTrade(1, 1, price_ticks, qty_lots, Side.BUY, time_us)


def test_a_candle_opens_rises_falls_and_closes() -> None:
    trades = [trade(5, 100, 1), trade(6, 120, 2), trade(7, 90, 3), trade(MINUTE_US - 1, 95, 4)]
    quote_atoms = (100 + 240 + 270 + 380) * 10
    assert aggregate(trades, 60, 10) == [Candle(0, 100, 120, 90, 95, 10, quote_atoms, 4)]


def test_a_minute_without_trades_has_no_candle() -> None:
    candles = aggregate([trade(0), trade(3 * MINUTE_US)], 60, 1)
    assert [candle.open_time_us for candle in candles] == [0, 3 * MINUTE_US]


def test_a_view_keeps_the_last_ones_and_does_not_touch_what_it_gave() -> None:
    view = CandleView(60, 1, limit=2, candles=aggregate([trade(0), trade(MINUTE_US)], 60, 1))
    first = view.add(trade(MINUTE_US + 1, 110))
    view.add(trade(MINUTE_US + 2, 120))
    assert (first.close_ticks, first.trades) == (110, 2)
    view.add(trade(2 * MINUTE_US))
    assert [candle.trades for candle in view.newest(5)] == [3, 1]
    assert [candle.trades for candle in view.newest(1)] == [1]
    assert view.newest(0) == []


@given(
    st.lists(st.tuples(st.integers(0, 200_000 * 10**6), st.integers(1, 50), st.integers(1, 9))),
    st.sampled_from(INTERVALS_S),
)
def test_longer_candles_are_sums_of_shorter_ones(rows: list[tuple[int, int, int]], interval_s: int) -> None:
    trades = [trade(*row) for row in sorted(rows, key=lambda row: row[0])]
    candles = aggregate(trades, interval_s, 7)
    assert roll_up(aggregate(trades, 60, 7), interval_s) == candles
    assert sum(candle.volume_lots for candle in candles) == sum(one.qty_lots for one in trades)
    assert all(candle.open_time_us % (interval_s * 10**6) == 0 for candle in candles)


@given(
    st.lists(st.tuples(st.integers(0, 900 * 10**6), st.integers(1, 50), st.integers(1, 9)), max_size=30),
    st.lists(st.integers(0, 3), max_size=30),
)
def test_what_a_view_gave_does_not_change_with_the_trades_that_follow(
    rows: list[tuple[int, int, int]], counts: list[int]
) -> None:
    """Whatever the order of their times; each candle is compared with one that is made anew by merging."""
    view, naive = CandleView(60, 7, limit=3), CandleView(60, 7, limit=3)
    given_out: list[tuple[Candle, Candle]] = []
    for number, (time_us, price, qty) in enumerate(rows):
        added = view.add(trade(time_us, price, qty))
        naive.merge(Candle(time_us, price, price, price, price, qty, price * qty * 7, 1))
        assert view.newest(None) == naive.newest(None)
        count = counts[number] if number < len(counts) else None
        given_out += [(one, replace(one)) for one in [added, *view.newest(count)]]
    assert all(one == as_it_was for one, as_it_was in given_out)
