"""The resting orders of one market: price levels, queues, and who owns what.

Costs, whatever the depth: best price O(1) amortized; a new price O(log levels); joining a queue,
leaving it from anywhere, and finding a user's orders O(1).

Each price has one `Level` with its orders in an intrusive doubly linked list, in order of priority.
A heap knows the best price. A level that becomes empty stays in the heap until it comes to the top
(or until half of the heap is empty levels), so a cancel never searches the heap.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from common.core.messages import Market, MarketStatus, OrderStatus, Reason, Side

_COMPACT_ABOVE = 64

# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_BUY: Final = Side.BUY
_OPEN: Final = OrderStatus.OPEN
_PARTIALLY_FILLED: Final = OrderStatus.PARTIALLY_FILLED
_NONE: Final = Reason.NONE


class Order:
    """An order under way or resting. `left_lots` is what it still wants.

    `sequence` is that of its Place and its priority within a price; `touched` that of the last
    command that changed it. `released_atoms` counts for the current batch alone. `level` is None
    unless it rests.
    """

    __slots__ = (
        "client_order_id",
        "fee_atoms",
        "filled_lots",
        "filled_quote_atoms",
        "held_atoms",
        "left_lots",
        "level",
        "market_id",
        "newer",
        "older",
        "order_id",
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
        self.status = _OPEN
        self.reason = _NONE
        self.level: Level | None = None
        self.older: Order | None = None
        self.newer: Order | None = None
        self.user_next: Order | None = None
        self.user_previous: Order | None = None

    def end(self, status: OrderStatus, reason: Reason) -> None:
        """It wants nothing more; what it still held goes back."""
        self.status = status
        self.reason = reason
        self.released_atoms += self.held_atoms
        self.held_atoms = 0


class Level:
    """The orders of one price, `oldest` first. `key` is the price, negative for bids."""

    __slots__ = ("key", "newest", "oldest", "price_ticks", "total_lots")

    def __init__(self, key: int, price_ticks: int) -> None:
        self.key = key
        self.price_ticks = price_ticks
        self.total_lots = 0
        self.oldest: Order | None = None
        self.newest: Order | None = None


class BookSide:
    """The bids or the asks. Keys are prices times `sign`, so that the least key is the best price.

    `changed` collects the keys whose totals changed since somebody cleared it.
    """

    __slots__ = ("_empty", "_heap", "_levels", "changed", "sign")

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.changed: set[int] = set()
        self._levels: dict[int, Level] = {}
        self._heap: list[int] = []  # The keys of _levels, each once.
        self._empty = 0

    def best(self) -> Level | None:
        """The level that is matched next."""
        heap = self._heap
        while heap:
            level = self._levels[heap[0]]
            if level.oldest is not None:
                return level
            del self._levels[heappop(heap)]
            self._empty -= 1
        return None

    def append(self, order: Order) -> None:
        """The order joins the end of the queue at its price."""
        key = order.price_ticks * self.sign
        level = self._levels.get(key)
        if level is None:
            level = Level(key, order.price_ticks)
            self._levels[key] = level
            heappush(self._heap, key)
        elif level.oldest is None:
            self._empty -= 1
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
        self.changed.add(key)

    def reduce(self, level: Level, lots: int) -> None:
        """An order of the level lost `lots`, which it has already subtracted from its own."""
        level.total_lots -= lots
        self.changed.add(level.key)

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
        self.changed.add(level.key)
        if level.oldest is None:
            assert level.total_lots == 0
            self._empty += 1
            if self._empty > _COMPACT_ABOVE and 2 * self._empty > len(self._heap):
                self._compact()

    def _compact(self) -> None:
        self._levels = {key: level for key, level in self._levels.items() if level.oldest is not None}
        self._heap = list(self._levels)
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
        result: list[tuple[int, int]] = []
        for key in sorted(self.changed):
            level = self._levels.get(key)
            result.append((key * self.sign, 0 if level is None else level.total_lots))
        self.changed.clear()
        return result

    def orders(self) -> Iterator[Order]:
        """Every order by price, ascending, then priority."""
        for key in sorted(self._levels, reverse=self.sign < 0):
            order = self._levels[key].oldest
            while order is not None:
                yield order
                order = order.newer


class Book:
    """One market as the engine knows it: its units, fees, status, numbering and both sides.

    `sequence` is the last sequence of the batch that last changed the levels; `fresh` until the
    book has been announced for the first time.
    """

    __slots__ = (
        "_users",
        "asks",
        "atoms_per_tick_lot",
        "bids",
        "fresh",
        "last_price_ticks",
        "lot_atoms",
        "maker_fee_bps",
        "market",
        "market_id",
        "next_trade_id",
        "sequence",
        "status",
        "taker_fee_bps",
    )

    def __init__(self, market: Market) -> None:
        self.market = market
        self.market_id = market.market_id
        self.lot_atoms = market.lot_atoms
        self.atoms_per_tick_lot = market.atoms_per_tick_lot
        self.maker_fee_bps = market.maker_fee_bps
        self.taker_fee_bps = market.taker_fee_bps
        self.status: MarketStatus = market.status
        self.next_trade_id = 1
        self.last_price_ticks = 0
        self.sequence = 0
        self.fresh = True
        self.bids = BookSide(-1)
        self.asks = BookSide(1)
        self._users: dict[int, Order] = {}  # The user's order that rested last; user_next leads on.

    def needed_atoms(self, order: Order) -> int:
        """What the order must hold for what it has left, at its own price."""
        if order.side is _BUY:
            return order.left_lots * order.price_ticks * self.atoms_per_tick_lot
        return order.left_lots * self.lot_atoms

    def rest(self, order: Order) -> None:
        """The order joins its queue and holds exactly what it needs; the surplus is released."""
        surplus_atoms = order.held_atoms - self.needed_atoms(order)
        assert surplus_atoms >= 0, "a resting order is fully held"
        order.held_atoms -= surplus_atoms
        order.released_atoms += surplus_atoms
        order.status = _PARTIALLY_FILLED if order.filled_lots else _OPEN
        (self.bids if order.side is _BUY else self.asks).append(order)
        head = self._users.get(order.user_id)
        if head is not None:
            head.user_previous = order
            order.user_next = head
        self._users[order.user_id] = order

    def remove(self, order: Order) -> None:
        """Take a resting order out of the book."""
        (self.bids if order.side is _BUY else self.asks).remove(order)
        before, after = order.user_previous, order.user_next
        if before is not None:
            before.user_next = after
        elif after is not None:
            self._users[order.user_id] = after
        else:
            del self._users[order.user_id]
        if after is not None:
            after.user_previous = before
        order.user_previous = order.user_next = None

    def orders_of(self, user_id: int) -> list[Order]:
        """The user's resting orders, the one that rested last first."""
        found: list[Order] = []
        order = self._users.get(user_id)
        while order is not None:
            found.append(order)
            order = order.user_next
        return found

    def has_orders_of(self, user_id: int) -> bool:
        return user_id in self._users
