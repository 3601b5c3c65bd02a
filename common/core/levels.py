"""Resting orders and where they stand: the queue of a price, and the prices of one side of a book.

Costs, whatever the depth: best price O(1) amortized; a new price O(log levels); joining a queue, and leaving
it from anywhere, O(1).

Each price has one `Level` with its orders in an intrusive doubly linked list, in order of priority.
A heap knows the best price. A level that becomes empty stays in the heap until it comes to the top
(or until half of the heap is empty levels), so a cancel never searches the heap.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from operator import itemgetter
from typing import Any, Final

from common.core.messages import OrderStatus, Reason, Side

_COMPACT_ABOVE = 64

# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_OPEN: Final = OrderStatus.OPEN
_NONE: Final = Reason.NONE

_PRICE: Final = itemgetter(0)


class Order:
    """An order under way or resting. `left_lots` is what it still wants.

    `sequence` is that of its Place and its priority within a price; `touched` that of the last
    command that changed it. `released_atoms` counts for the current batch alone, and `in_batch` tells
    that it is among the orders that the batch touched. `level` is None unless it rests.
    `key` is its id as an object: compiled, a number is made an object anew wherever it is a key.
    """

    __slots__ = (
        "client_order_id",
        "fee_atoms",
        "filled_lots",
        "filled_quote_atoms",
        "held_atoms",
        "in_batch",
        "key",
        "left_lots",
        "level",
        "market_id",
        "newer",
        "older",
        "order_id",
        "owner",
        "price_ticks",
        "reason",
        "released_atoms",
        "sequence",
        "side",
        "status",
        "touched",
        "user_id",
        "user_next",
        "user_previous",
    )

    def __init__(
        self,
        order_id: int,
        user_id: int,
        market_id: int,
        client_order_id: str,
        side: Side,
        price_ticks: int,
        left_lots: int,
        held_atoms: int,
        sequence: int,
    ) -> None:
        self.order_id = order_id
        self.key: Any = order_id
        self.user_id = user_id
        self.market_id = market_id
        self.client_order_id = client_order_id
        self.side = side
        self.price_ticks = price_ticks
        self.left_lots = left_lots
        self.held_atoms = held_atoms
        self.sequence = sequence
        self.touched = sequence
        self.filled_lots = 0
        self.filled_quote_atoms = 0
        self.fee_atoms = 0
        self.released_atoms = 0
        self.in_batch = False
        self.status = _OPEN
        self.reason = _NONE
        self.level: Level | None = None
        self.owner: Owner | None = None
        self.older: Order | None = None
        self.newer: Order | None = None
        self.user_next: Order | None = None
        self.user_previous: Order | None = None

    def touch(self, sequence: int, touched: list["Order"]) -> None:
        """The command at `sequence` changes it; `touched` has each order of the batch once."""
        self.touched = sequence
        if not self.in_batch:
            self.in_batch = True
            touched.append(self)

    def end(self, status: OrderStatus, reason: Reason) -> None:
        """It wants nothing more; what it still held goes back."""
        self.status = status
        self.reason = reason
        self.released_atoms += self.held_atoms
        self.held_atoms = 0


class Owner:
    """A user's resting orders in one market: the one that rested last; `user_next` leads on."""

    __slots__ = ("newest",)

    def __init__(self) -> None:
        self.newest: Order | None = None


class Level:
    """The orders of one price, `oldest` first. `key` is the price, negative for bids.

    `changed`: its side will tell of it. `in_heap`: its key is in the heap.
    """

    __slots__ = ("changed", "in_heap", "key", "newest", "oldest", "price_ticks", "total_lots")

    def __init__(self, key: int, price_ticks: int) -> None:
        self.key = key
        self.price_ticks = price_ticks
        self.total_lots = 0
        self.changed = False
        self.in_heap = True
        self.oldest: Order | None = None
        self.newest: Order | None = None


class BookSide:
    """The bids or the asks. Keys are prices times `sign`, so that the least key is the best price.

    Of the levels with orders, `_top` is the best, unless it has become empty: then the heap knows.
    """

    __slots__ = ("_changed", "_empty", "_heap", "_levels", "_top", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self._changed: list[Level] = []  # Those whose totals changed since they were taken, each once.
        self._top: Level | None = None
        self._levels: dict[int, Level] = {}  # Those in the heap, and the changed ones.
        self._heap: list[Any] = []  # Keys of _levels, each once, as the very objects.
        self._empty = 0  # Levels in the heap without orders.

    def best(self) -> Level | None:
        """The level that is matched next."""
        top = self._top
        if top is not None and top.oldest is not None:
            return top
        heap = self._heap
        while heap:
            level = self._levels[heap[0]]
            if level.oldest is not None:
                self._top = level
                return level
            heappop(heap)
            self._empty -= 1
            self._leave_heap(level)
        self._top = None
        return None

    def append(self, order: Order) -> None:
        """The order joins the end of the queue at its price."""
        key = order.price_ticks * self.sign
        level = self._levels.get(key)
        if level is None:
            level = Level(key, order.price_ticks)
            boxed: Any = key
            self._levels[boxed] = level
            heappush(self._heap, boxed)
        elif not level.in_heap:
            level.in_heap = True
            heappush(self._heap, key)
        elif level.oldest is None:
            self._empty -= 1
        top = self._top
        if top is None or key <= top.key:
            self._top = level
        last = level.newest
        if last is None:
            level.oldest = order
        else:
            assert last.sequence < order.sequence, "orders join in the order of their priority"
            last.newer = order
            order.older = last
        level.newest = order
        level.total_lots += order.left_lots
        order.level = level
        if not level.changed:
            level.changed = True
            self._changed.append(level)

    def reduce(self, level: Level, lots: int) -> None:
        """An order of the level lost `lots`, which it has already subtracted from its own."""
        level.total_lots -= lots
        if not level.changed:
            level.changed = True
            self._changed.append(level)

    def _leave_heap(self, level: Level) -> None:
        """An empty level is forgotten, once it has been told of: a new one could not know what it had."""
        level.in_heap = False
        if not level.changed:
            del self._levels[level.key]

    def remove(self, order: Order) -> None:
        """Take the order, with what it has left, out of its queue."""
        level = order.level
        assert level is not None, "the order rests"
        older, newer = order.older, order.newer
        if older is None:
            level.oldest = newer
        else:
            older.newer = newer
        if newer is None:
            level.newest = older
        else:
            newer.older = older
        order.level = order.older = order.newer = None
        level.total_lots -= order.left_lots
        if not level.changed:
            level.changed = True
            self._changed.append(level)
        if level.oldest is None:
            assert level.total_lots == 0
            self._empty += 1
            if self._empty > _COMPACT_ABOVE and 2 * self._empty > len(self._heap):
                self._compact()

    def _compact(self) -> None:
        for level in [level for level in self._levels.values() if level.oldest is None and level.in_heap]:
            self._leave_heap(level)
        self._heap = [level.key for level in self._levels.values() if level.in_heap]
        heapify(self._heap)
        self._empty = 0

    def best_first(self) -> Iterator[Level]:
        """The levels that have orders, best first; reading k of them costs O(k log k), not all."""
        frontier: list[tuple[int, int]] = [(self._heap[0], 0)] if self._heap else []
        while frontier:
            key, place = heappop(frontier)
            for child in (2 * place + 1, 2 * place + 2):
                if child < len(self._heap):
                    heappush(frontier, (self._heap[child], child))
            level = self._levels[key]
            if level.oldest is not None:
                yield level

    def totals(self) -> list[tuple[int, int]]:
        """Every level as (price_ticks, qty_lots), best first."""
        levels = self._levels
        return [
            (key * self.sign, levels[key].total_lots)
            for key in sorted(levels)
            if levels[key].oldest is not None
        ]

    def take_changes(self) -> list[tuple[int, int]]:
        """The changed levels with their new totals (0: gone), best first; starts collecting anew."""
        result = [(level.price_ticks, level.total_lots) for level in self._changed]
        result.sort(key=_PRICE, reverse=self.sign < 0)
        self.forget_changes()
        return result

    def forget_changes(self) -> None:
        """What changed so far is told to nobody any more."""
        for level in self._changed:
            level.changed = False
            if not level.in_heap:
                del self._levels[level.key]
        self._changed.clear()

    def by_price(self) -> list[Level]:
        """Every level by price, ascending, also those that have become empty."""
        levels = self._levels
        return [levels[key] for key in sorted(levels, reverse=self.sign < 0)]

    def orders(self) -> Iterator[Order]:
        """Every order by price, ascending, then priority."""
        for level in self.by_price():
            order = level.oldest
            while order is not None:
                yield order
                order = order.newer
