"""The local book against a naive one, and what it says while it cannot be trusted."""

from decimal import Decimal

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange_client import Level, OrderBook, OutOfSync, UnknownSymbol

SIDE = st.lists(st.builds(Level, st.integers(1, 9).map(Decimal), st.integers(0, 3).map(Decimal)), max_size=6)
CHANGE = st.tuples(st.booleans(), SIDE, SIDE)


def naive(
    side: dict[Decimal, Decimal], levels: list[Level], *, best_first: int
) -> list[tuple[Decimal, Decimal]]:
    side.update((level.price, level.quantity) for level in levels)
    return sorted(((p, q) for p, q in side.items() if q), key=lambda level: best_first * level[0])


@settings(max_examples=40)
@given(st.lists(CHANGE, max_size=12))
def test_it_is_what_a_naive_book_is(changes: list[tuple[bool, list[Level], list[Level]]]) -> None:
    book = OrderBook("BTC-USD")
    bids: dict[Decimal, Decimal] = {}
    asks: dict[Decimal, Decimal] = {}
    for sequence, (snapshot, new_bids, new_asks) in enumerate([(True, [], []), *changes]):
        if snapshot:
            bids, asks = {}, {}
        book.apply(sequence, new_bids, new_asks, snapshot=snapshot)
        assert [(one.price, one.quantity) for one in book.bids()] == naive(bids, new_bids, best_first=-1)
        assert [(one.price, one.quantity) for one in book.asks()] == naive(asks, new_asks, best_first=1)
        assert book.bids(2) == book.bids()[:2]
        assert book.best_ask == next(iter(book.asks()), None)
        assert book.sequence == sequence


def test_the_middle_is_between_the_best() -> None:
    book = OrderBook("BTC-USD")
    bid, ask = Level(Decimal(10), Decimal(1)), Level(Decimal(13), Decimal(1))
    book.apply(1, [bid], [ask], snapshot=True)
    assert (book.best_bid, book.best_ask, book.mid) == (bid, ask, Decimal("11.5"))
    book.apply(2, [Level(Decimal(10), Decimal(0))], [], snapshot=False)
    assert (book.best_bid, book.mid) == (None, None)


def test_nothing_is_read_from_a_book_that_may_be_wrong() -> None:
    book = OrderBook("BTC-USD")
    for lose in (False, True):
        if lose:
            book.apply(1, [], [], snapshot=True)
            book.lose()
        for read in (book.bids, book.asks, lambda: book.mid):
            with pytest.raises(OutOfSync):
                read()


@pytest.mark.anyio
async def test_who_waits_for_a_change_is_told() -> None:
    book = OrderBook("BTC-USD")
    seen: list[bool] = []

    async def watch() -> None:
        await book.ready()
        seen.append(book.synced)
        await book.changed(1)
        seen.append(book.synced)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        book.apply(1, [], [], snapshot=True)
        await anyio.wait_all_tasks_blocked()
        book.lose()
    assert seen == [True, False]
    book.fail(UnknownSymbol("UNKNOWN_SYMBOL", "none"))
    with pytest.raises(UnknownSymbol):
        await book.ready()
