"""What a feed makes of events that come twice, late, out of order or not at all."""

import random

from daemons.market_data.feed import MAX_WAITING, Fence, History, MarketFeed
from tests.unit.daemons.market_data.samples import BTC, change, full, seeded_feed, trade


def test_a_fence_admits_the_highest_token_it_has_seen_and_higher_ones() -> None:
    fence = Fence("orderbook")
    assert [fence.admits(token) for token in (3, 3, 2, 5, 4, 5)] == [True, True, False, True, False, True]


def test_changes_gather_until_they_are_taken() -> None:
    feed = MarketFeed(BTC)
    feed.apply_book(full(1, bids=[(10, 1)]), 1, 0.0)
    assert feed.take_changes() == (True, {})
    feed.apply_book(change(2, 1, bids=[(10, 0), (9, 4)]), 1, 0.0)
    feed.apply_book(change(3, 2, bids=[(9, 5)], asks=[(11, 1)]), 1, 0.0)
    assert feed.take_changes() == (False, {(True, 10): 0, (True, 9): 5, (False, 11): 1})
    assert feed.take_changes() == (False, {})


def test_a_gap_hides_the_book_and_a_full_one_brings_it_back() -> None:
    feed = MarketFeed(BTC)
    feed.apply_book(full(1, bids=[(10, 1)]), 1, 0.0)
    feed.take_changes()
    feed.apply_book(change(3, 2, bids=[(9, 1)]), 1, 5.0)
    assert not feed.depth.synced
    assert feed.take_changes() == (False, {})
    feed.apply_book(change(4, 3, bids=[(8, 1)]), 1, 6.0)
    feed.apply_book(full(4, bids=[(8, 1)]), 1, 7.0)
    assert feed.depth.synced
    assert feed.take_changes() == (True, {})


def test_repeated_updates_change_nothing() -> None:
    feed = MarketFeed(BTC)
    for update in (full(1, bids=[(10, 1)]), change(2, 1, bids=[(10, 2)]), change(2, 1, bids=[(10, 2)])):
        feed.apply_book(update, 1, 0.0)
    feed.take_changes()
    feed.apply_book(full(2, bids=[(10, 2)]), 1, 0.0)
    assert feed.take_changes() == (False, {})


def test_an_older_full_book_counts_from_a_newer_leader_alone() -> None:
    feed = MarketFeed(BTC)
    feed.apply_book(full(5, bids=[(10, 1)]), 7, 0.0)
    feed.take_changes()
    feed.apply_book(full(4, bids=[(9, 1)]), 7, 0.0)
    feed.apply_book(full(9, bids=[(8, 1)]), 6, 0.0)  # Read again from further back.
    assert (feed.depth.sequence, feed.take_changes()) == (5, (False, {}))
    feed.apply_book(full(4, bids=[(10, 1)]), 8, 0.0)
    assert (feed.depth.sequence, feed.take_changes()) == (4, (True, {}))


def test_trades_wait_for_the_history_and_follow_it() -> None:
    feed = MarketFeed(BTC)
    feed.apply_trades([trade(4), trade(3), trade(2)], 0.0)
    assert feed.take_trades() == []
    feed.seed(History({}, [trade(1), trade(2)], [trade(1), trade(2)]), 0.0)
    assert [each.trade_id for each in feed.tape.newest(9)] == [4, 3, 2, 1]
    assert feed.hole() is None


def test_a_hole_is_named_and_filled_in_order() -> None:
    feed = seeded_feed(trade(1))
    feed.apply_trades([trade(5), trade(4)], 1.0)
    assert (feed.hole(), feed.hole_since_s, feed.take_trades()) == ((2, 3), 1.0, [])
    feed.apply_trades([trade(2)], 2.0)
    assert (feed.hole(), feed.hole_since_s) == ((3, 3), 2.0)
    feed.apply_trades([trade(3), trade(3)], 3.0)
    assert [each.trade_id for each in feed.take_trades()] == [2, 3, 4, 5]
    assert (feed.hole(), feed.hole_since_s) == (None, None)


def test_a_book_names_trades_that_have_not_come() -> None:
    feed = seeded_feed(trade(1))
    feed.apply_book(full(1, last_trade_id=3), 1, 4.0)
    assert (feed.hole(), feed.hole_since_s) == ((2, 3), 4.0)
    assert feed.skip_hole(9.0) == 2
    assert feed.hole() is None
    feed.apply_trades([trade(4)], 9.0)
    assert [each.trade_id for each in feed.take_trades()] == [4]


def test_a_hole_that_is_given_up_lets_the_later_trades_through() -> None:
    feed = seeded_feed(trade(1))
    feed.apply_trades([trade(4), trade(5), trade(8)], 0.0)
    assert feed.skip_hole(1.0) == 2
    assert [each.trade_id for each in feed.take_trades()] == [4, 5]
    assert feed.hole() == (6, 7)


def test_what_waits_behind_a_hole_is_bounded_and_not_forgotten() -> None:
    feed = seeded_feed()
    count = MAX_WAITING + 50
    feed.apply_trades([trade(number) for number in range(2, count + 1)], 0.0)
    feed.apply_trades([trade(1)], 0.0)
    assert feed.tape.last_trade_id == MAX_WAITING + 1
    assert feed.hole() == (MAX_WAITING + 2, count)


def test_candles_and_ticker_count_each_trade_once_in_any_order(seed: int) -> None:
    order = random.Random(seed)
    feed = seeded_feed()
    minute_us = 60_000_000
    trades = [trade(n, price=100 + n, qty=n, time_us=n * minute_us // 2) for n in range(1, 21)]
    sent = [*trades, *trades]
    order.shuffle(sent)
    feed.apply_trades(sent, 0.0)
    assert feed.take_trades() == trades
    for view in feed.candles.values():
        assert sum(candle.trades for candle in view.newest(None)) == 20
    ticker = feed.ticker(10 * minute_us)
    assert (ticker.trades, ticker.volume_lots, ticker.last_ticks) == (20, 210, 120)
    changed = feed.take_candles(60)
    assert changed == feed.candles[60].newest(None)
    assert feed.take_candles(60) == []
