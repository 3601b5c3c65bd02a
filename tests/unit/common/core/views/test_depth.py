from common.core.messages import BookUpdate
from common.core.views import DepthView, Level


def book(
    sequence: int, bids: list[Level], asks: list[Level], *, previous: int = 0, full: bool = False
) -> BookUpdate:
    return BookUpdate(1, full, sequence, previous, sequence // 2, bids, asks, sequence * 1_000)


FULL = book(10, [(100, 1), (99, 2)], [(101, 3), (103, 4)], full=True)


def synced() -> DepthView:
    view = DepthView(1)
    assert not view.apply(FULL)
    return view


def test_updates_change_add_and_remove_levels() -> None:
    view = synced()
    assert not view.apply(book(12, [(100, 0), (98, 5)], [(101, 7), (102, 1), (200, 0)], previous=10))
    assert view.top(10) == ([(99, 2), (98, 5)], [(101, 7), (102, 1), (103, 4)])
    assert view.top(1) == ([(99, 2)], [(101, 7)])
    assert view.top(0) == ([], [])
    assert (view.best_bid_ticks, view.best_ask_ticks) == (99, 101)
    assert (view.sequence, view.last_trade_id, view.time_us) == (12, 6, 12_000)


def test_a_gap_is_told_and_lasts_until_the_next_full_book() -> None:
    view = synced()
    assert view.apply(book(15, [], [(101, 0)], previous=13))
    assert not view.synced
    assert view.apply(book(16, [], [(101, 0)], previous=10))
    assert view.top(1)[1] == [(101, 3)]
    assert not view.apply(book(20, [], [(105, 1)], full=True))
    assert view.synced
    assert view.top(5) == ([], [(105, 1)])


def test_an_empty_view_waits_for_a_full_book() -> None:
    view = DepthView(1)
    assert view.apply(book(1, [(1, 1)], []))
    assert (view.top(1), view.best_bid_ticks, view.best_ask_ticks) == (([], []), 0, 0)


def test_what_is_older_is_ignored() -> None:
    view = synced()
    assert not view.apply(book(10, [(100, 9)], [], previous=8))
    assert not view.apply(book(3, [(100, 9)], [], previous=2))
    assert view.top(1)[0] == [(100, 1)]


def test_a_full_book_is_the_truth_even_when_it_is_older() -> None:
    view = synced()
    view.apply(book(7, [(90, 1)], [], full=True))
    assert (view.sequence, view.top(5)) == (7, ([(90, 1)], []))


def test_a_view_can_start_from_another() -> None:
    assert synced().as_full() == FULL
