import random

from common.core.book import Book
from common.core.levels import BookSide, Order
from common.core.messages import Asset, Market, Side

MARKET = Market(1, "BTC-USD", Asset(2, "BTC", 8), Asset(1, "USD", 8), 0, 1_000_000, 1_000, 10**8, 10, 20)


def bid(order_id: int, price_ticks: int, lots: int = 1, user_id: int = 1) -> Order:
    return Order(order_id, user_id, 1, "", Side.BUY, price_ticks, lots, lots * price_ticks * 10, order_id)


def rest(book: Book, order: Order) -> None:
    book.rest(order, book.surplus_atoms(order))


def test_the_best_bid_is_the_highest_and_the_best_ask_the_lowest() -> None:
    bids, asks = BookSide(-1), BookSide(1)
    for order_id, price_ticks in enumerate((100, 102, 101), 1):
        bids.append(bid(order_id, price_ticks))
        asks.append(bid(order_id, price_ticks))
    best_bid, best_ask = bids.best(), asks.best()
    assert best_bid is not None
    assert best_ask is not None
    assert (best_bid.price_ticks, best_ask.price_ticks) == (102, 100)
    assert [level.price_ticks for level in bids.best_first()] == [102, 101, 100]
    assert bids.totals() == [(102, 1), (101, 1), (100, 1)]


def test_an_order_leaves_from_anywhere_and_the_rest_keep_their_turn() -> None:
    book = Book(MARKET)
    orders = [bid(order_id, 100, order_id) for order_id in range(1, 6)]
    for order in orders:
        rest(book, order)
    for order in (orders[2], orders[0], orders[4]):
        book.remove(order)
    assert [order.order_id for order in book.bids.orders()] == [2, 4]
    assert book.bids.totals() == [(100, 6)]
    book.remove(orders[1])
    book.remove(orders[3])
    assert book.bids.best() is None
    assert not book.has_orders_of(1)


def test_changes_are_absolute_and_told_once() -> None:
    book = Book(MARKET)
    first, second = bid(1, 100, 3), bid(2, 99, 4)
    rest(book, first)
    rest(book, second)
    assert book.bids.take_changes() == [(100, 3), (99, 4)]
    assert book.bids.take_changes() == []
    book.remove(first)
    assert book.bids.best() is not None
    assert book.bids.take_changes() == [(100, 0)]


def test_a_price_that_comes_and_goes_does_not_fill_the_heap() -> None:
    book = Book(MARKET)
    rest(book, bid(1, 1_000_000))  # The best; what is behind it never comes to the top.
    for order_id in range(2, 5_000):
        order = bid(order_id, order_id)
        rest(book, order)
        book.remove(order)
    assert len(book.bids._heap) < 200
    book.bids.forget_changes()  # Until then it remembers what it has to tell.
    assert len(book.bids._levels) == len(book.bids._heap)
    assert book.bids.totals() == [(1_000_000, 1)]


def test_a_users_orders_are_found_however_they_come_and_go() -> None:
    rng, book = random.Random(1), Book(MARKET)
    resting: dict[int, Order] = {}
    for order_id in range(1, 2_000):
        if resting and rng.random() < 0.5:
            book.remove(resting.pop(rng.choice(list(resting))))
        else:
            resting[order_id] = bid(order_id, rng.randint(90, 110), user_id=rng.randint(1, 5))
            rest(book, resting[order_id])
        for user_id in (1, 2, 3, 4, 5):
            mine = {order.order_id for order in book.orders_of(user_id)}
            assert mine == {order.order_id for order in resting.values() if order.user_id == user_id}
            assert book.has_orders_of(user_id) == bool(mine)


def test_users_who_come_and_go_are_forgotten() -> None:
    book = Book(MARKET)
    rest(book, bid(1, 100, user_id=1))
    for order_id in range(2, 5_000):
        order = bid(order_id, 100, user_id=order_id)
        rest(book, order)
        assert book.has_orders_of(order_id)
        book.remove(order)
        assert not book.has_orders_of(order_id)
    assert len(book._owners) < 200
    assert book.has_orders_of(1)


def test_a_resting_order_gives_back_what_it_does_not_need() -> None:
    order = Order(1, 1, 1, "", Side.BUY, 100, 5, 5_700, 1)
    rest(Book(MARKET), order)
    assert (order.held_atoms, order.released_atoms) == (5_000, 700)
