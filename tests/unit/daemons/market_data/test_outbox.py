"""Queue, conflate or close: what one slow client costs, and what it is sent in the end."""

import random
from collections.abc import Callable

import anyio
import pytest

from daemons.market_data.channels import MarketChannels
from daemons.market_data.fanout import Fanout
from daemons.market_data.outbox import (
    MAX_CHANGED_LEVELS,
    TRY_AGAIN_LATER,
    Frame,
    Item,
    Outbox,
    Subscription,
)
from daemons.market_data.render import DepthBody, Plain, TradesBody
from tests.unit.daemons.market_data.samples import change, full, seeded_feed, trade


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def channels() -> MarketChannels:
    made = MarketChannels(seeded_feed(trade(1)), Fanout(), now=lambda: 0)
    made.feed.apply_book(full(1, bids=[(10, 1)]), 1, 0.0)
    made.seeded()
    made.publish(0.0)
    return made


def frames(items: list[Item]) -> list[Frame]:
    assert all(isinstance(item, Frame) for item in items)
    return [item for item in items if isinstance(item, Frame)]


def take_all(outbox: Outbox) -> list[Frame]:
    taken: list[Frame] = []
    while more := outbox.take(1):
        taken += frames(more)
    return taken


def book_of(frames: list[Frame], book: dict[int, int], last: int) -> int:
    """What a client makes of depth frames; the last sequence. Asserts that each follows the one before."""
    for frame in frames:
        assert isinstance(frame.body, DepthBody)
        if frame.snapshot:
            book.clear()
        else:
            assert frame.previous == last
        last = frame.sequence
        for price, qty in frame.body.bids:
            book[price] = qty
            if not qty:
                del book[price]
    return last


def test_a_new_listener_gets_the_snapshot_then_shared_frames() -> None:
    market = channels()
    first, second = Outbox(), Outbox()
    for outbox in (first, second):
        market.depth.join(outbox)
    assert [(frame.snapshot, frame.sequence) for frame in take_all(first)] == [(True, 1)]
    take_all(second)
    market.feed.apply_book(change(2, 1, bids=[(9, 3)]), 1, 0.0)
    market.publish(0.0)
    (one,), (other,) = take_all(first), take_all(second)
    assert one is other
    assert one.wire is other.wire
    assert (one.snapshot, one.sequence, one.previous) == (False, 2, 1)


def test_a_slow_listener_of_depth_gets_one_update_that_follows_what_it_was_sent() -> None:
    market = channels()
    outbox = Outbox(soft_bytes=1)
    market.depth.join(outbox)
    take_all(outbox)
    for sequence in range(2, 12):
        market.feed.apply_book(change(sequence, sequence - 1, bids=[(sequence, sequence)]), 1, 0.0)
        market.publish(0.0)
    got = take_all(outbox)
    assert [(frame.sequence, frame.previous) for frame in got] == [(2, 1), (11, 2)]
    assert isinstance(got[1].body, DepthBody)
    assert sorted(got[1].body.bids) == [(price, price) for price in range(3, 12)]


def test_too_many_changed_levels_become_a_snapshot() -> None:
    market = channels()
    outbox = Outbox(soft_bytes=1)
    market.depth.join(outbox)
    take_all(outbox)
    for sequence in range(2, 5):
        bids = [(price, sequence) for price in range(sequence * 10_000, sequence * 10_000 + 900)]
        market.feed.apply_book(change(sequence, sequence - 1, bids=bids), 1, 0.0)
        market.publish(0.0)
    assert MAX_CHANGED_LEVELS < 3 * 900
    assert [frame.snapshot for frame in take_all(outbox)] == [False, False]
    for sequence in range(5, 9):
        bids = [(price, sequence) for price in range(sequence * 10_000, sequence * 10_000 + 900)]
        market.feed.apply_book(change(sequence, sequence - 1, bids=bids), 1, 0.0)
        market.publish(0.0)
    assert [(frame.snapshot, frame.sequence) for frame in take_all(outbox)] == [(False, 5), (True, 8)]


def test_every_listener_ends_with_the_same_book_however_slowly_it_reads(seed: int) -> None:
    order = random.Random(seed)
    market = channels()
    outboxes = [Outbox(soft_bytes=soft) for soft in (1, 300, 1_000, 1 << 20)]
    books: list[dict[int, int]] = [{} for _ in outboxes]
    last = [0 for _ in outboxes]
    for outbox in outboxes:
        market.depth.join(outbox)
    sequence = 1
    for _ in range(400):
        kind = order.random()
        if kind < 0.02:  # A gap; later a full book.
            sequence += 2
            market.feed.apply_book(change(sequence, sequence - 1), 1, 0.0)
        elif kind < 0.1 or not market.feed.depth.synced:
            sequence += 1
            market.feed.apply_book(full(sequence, bids=[(order.randrange(1, 30), 1)]), 1, 0.0)
        else:
            bids = [(order.randrange(1, 30), order.randrange(3)) for _ in range(order.randrange(1, 4))]
            market.feed.apply_book(change(sequence + 1, sequence, bids=dict(bids).items()), 1, 0.0)  # type: ignore[arg-type]  # a view is as good as a list
            sequence += 1
        market.publish(0.0)
        for number, outbox in enumerate(outboxes):
            if order.random() < (0.9, 0.5, 0.1, 0.3)[number]:
                taken = frames(outbox.take(order.choice((1, 500))))
                last[number] = book_of(taken, books[number], last[number])
    if not market.feed.depth.synced:
        market.feed.apply_book(full(sequence + 1, bids=[(7, 7)]), 1, 0.0)
        market.publish(0.0)
    for number, outbox in enumerate(outboxes):
        assert book_of(take_all(outbox), books[number], last[number]) == market.depth.sequence
        assert books[number] == dict(market.feed.depth.top(100)[0])


def test_trades_are_never_conflated_and_their_slow_reader_is_closed() -> None:
    market = channels()
    outbox = Outbox(soft_bytes=1, hard_bytes=3_000)
    market.trades.join(outbox)
    take_all(outbox)
    for trade_id in range(2, 30):
        market.feed.apply_trades([trade(trade_id)], 0.0)
        market.publish(0.0)
    assert outbox.closed == (TRY_AGAIN_LATER, "too slow for trades:BTC-USD")
    assert (outbox.bytes, outbox.take(1 << 20)) == (0, [])


def test_one_client_holds_no_more_than_its_bound() -> None:
    market = channels()
    outbox = Outbox(soft_bytes=1_000, hard_bytes=10_000)
    market.trades.join(outbox)
    market.depth.join(outbox)
    take_all(outbox)
    trade_id, sequence = 1, 1
    while outbox.closed is None:
        trade_id, sequence = trade_id + 1, sequence + 1
        market.feed.apply_trades([trade(trade_id)], 0.0)
        market.feed.apply_book(change(sequence, sequence - 1, bids=[(sequence, 1)]), 1, 0.0)
        market.publish(0.0)
        assert outbox.bytes <= 10_000
    assert trade_id < 100


def test_a_client_that_does_not_read_its_answers_is_closed() -> None:
    outbox = Outbox(soft_bytes=10, hard_bytes=100)
    for _ in range(30):
        outbox.reply(b"0123456789")
    assert outbox.closed == (TRY_AGAIN_LATER, "does not read its answers")


def test_a_listener_of_a_stale_book_waits_for_the_next_whole_one() -> None:
    market = channels()
    market.feed.apply_book(change(5, 4), 1, 0.0)
    market.publish(0.0)
    outbox = Outbox()
    market.depth.join(outbox)
    assert take_all(outbox) == []
    market.feed.apply_book(full(6, bids=[(1, 1)]), 1, 0.0)
    market.publish(0.0)
    assert [(frame.snapshot, frame.sequence) for frame in take_all(outbox)] == [(True, 6)]


def test_a_snapshot_of_candles_does_not_run_ahead_of_the_other_listeners() -> None:
    market = channels()
    early, late = Outbox(), Outbox()
    market.klines[60].join(early)
    take_all(early)
    market.feed.apply_trades([trade(2)], 0.0)  # Not published yet: candles go out a few times a second.
    market.klines[60].join(late)
    (snapshot,) = take_all(late)
    assert snapshot.sequence == 2
    market.feed.apply_trades([trade(3)], 0.0)
    market.publish_summaries()
    assert [(frame.previous, frame.sequence) for frame in take_all(early)] == [(1, 2), (2, 3)]
    assert [(frame.previous, frame.sequence) for frame in take_all(late)] == [(2, 3)]


def test_a_ticker_is_told_when_it_changes_and_conflated() -> None:
    market = channels()
    outbox = Outbox(soft_bytes=1)
    market.ticker.join(outbox)
    (first,) = take_all(outbox)
    market.publish_summaries()
    assert take_all(outbox) == []
    for trade_id in range(2, 6):
        market.feed.apply_trades([trade(trade_id, price=trade_id)], 0.0)
        market.publish_summaries()
    got = take_all(outbox)
    assert len(got) == 2
    assert [frame.previous for frame in got] == [first.sequence, got[0].sequence]
    assert got[1].body == market.ticker.body()


def test_a_frame_that_nobody_is_sent_is_never_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_body: TradesBody) -> object:
        raise AssertionError

    monkeypatch.setattr(TradesBody, "to_json", fail)
    market = channels()
    market.feed.apply_trades([trade(2)], 0.0)
    market.publish(0.0)


def test_leaving_a_channel_ends_its_frames() -> None:
    market = channels()
    outbox = Outbox()
    subscription = market.depth.join(outbox)
    market.depth.leave(subscription)
    market.depth.leave(subscription)
    market.feed.apply_book(change(2, 1, bids=[(9, 3)]), 1, 0.0)
    market.publish(0.0)
    assert take_all(outbox) == []


@pytest.mark.anyio
async def test_waiting_ends_when_there_is_something_to_send_or_to_close() -> None:
    outbox = Outbox()
    acts: list[Callable[[], None]] = [
        lambda: outbox.reply(b"x"),
        lambda: outbox.urgent(b"x"),
        lambda: outbox.close(1000, "done"),
    ]
    for act in acts:
        async with anyio.create_task_group() as group:
            group.start_soon(outbox.wait)
            await anyio.wait_all_tasks_blocked()
            act()
        outbox.take(1)
        outbox.take_urgent()


@pytest.mark.anyio
async def test_closing_leaves_a_send_under_way_only_a_moment() -> None:
    outbox = Outbox()
    outbox.on_close = anyio.CancelScope(deadline=anyio.current_time() + 100)
    outbox.close(1001, "going away")
    outbox.close(1013, "too late")
    assert outbox.closed == (1001, "going away")
    assert outbox.on_close.deadline < anyio.current_time() + 10
    outbox.send(Frame("orders", Plain([], 2), snapshot=True, sequence=1, previous=0))
    assert outbox.take(1) == []


def test_a_subscription_notes_the_latest_of_each_level() -> None:
    subscription = Subscription(channels().depth, Outbox())
    subscription.fall_behind({(True, 1): 5})
    subscription.fall_behind({(True, 1): 6, (False, 2): 1})
    assert subscription.changed == {(True, 1): 6, (False, 2): 1}
    subscription.fall_behind(None)
    subscription.fall_behind({(True, 1): 7})
    assert subscription.changed is None
