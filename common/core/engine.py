"""The matching engine of one partition: (state, batch) -> (state, events), and nothing else.

It does not read a clock, draw a random number or do I/O, and it does not check what TX1 has checked
(common.core.orders). The same commands in the same batches give the same settlements on every
machine, whether the engine saw them all or was restored at a watermark in between (DESIGN I4, I8).

What each command does:

Place      Self-trade prevention, time in force and the ends of an order: common.core.match and
           `_conclude`. Refused by the engine, with everything released: a halted or unknown market
           (REJECTED, MARKET_HALTED), a post-only order that would cross, even against its own owner
           (REJECTED, POST_ONLY_WOULD_CROSS), an order that its hold does not cover (REJECTED,
           HOLD_EXHAUSTED; TX1 never writes one).
Cancel     Ends a resting order of that user. Of an unknown, ended or foreign order: changes nothing.
CancelAll  The same for each of the user's resting orders.
SetMarket  Creates a market, or changes the fees and status of one; its units never change.
Noop       Changes nothing but the sequence.
Skipped    An operator had this command passed over: a Place ends at once, CANCELED, OPERATOR_SKIP, with
           everything released; any other changes nothing.

Public views of the books are not part of the settlement. A book update's `previous` is the sequence
of the batch that last changed that book; after a restore, the watermark's. Both kinds of leader
publish `books()` first, whose sequences are those, so updates always chain to what was published.
"""

from collections.abc import Callable
from typing import Any, Final

from common.core.book import Book
from common.core.levels import Order
from common.core.match import Stop, fillable, take
from common.core.messages import (
    GENESIS_CHAIN,
    Applied,
    Batch,
    BookDigest,
    BookUpdate,
    Cancel,
    CancelAll,
    Market,
    MarketStatus,
    Noop,
    OrderStatus,
    OrderType,
    Place,
    Reason,
    SetMarket,
    Settlement,
    Side,
    Skipped,
    Snapshot,
    TimeInForce,
    Trade,
)
from common.core.outward import book_digest, full_book, live_order, market_now, market_state, order_states
from common.core.restoring import in_order, restored_book, restored_order
from common.core.sequencing import is_due
from common.core.units import MAX_INT64

ENGINE_VERSION = 1

# Digests of all books come at least so many commands apart (`sequencing.is_due`).
DIGEST_EVERY = 1_024

Pause = Callable[[], None]
PAUSE_ORDERS: Final = 4_096  # Restored between two pauses,
PAUSE_COMMANDS: Final = 16  # and applied.

# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_BUY: Final = Side.BUY
_LIMIT: Final = OrderType.LIMIT
_ACTIVE: Final = MarketStatus.ACTIVE
_GTC: Final = TimeInForce.GTC
_FOK: Final = TimeInForce.FOK
_FILLED: Final = OrderStatus.FILLED
_CANCELED: Final = OrderStatus.CANCELED
_REJECTED: Final = OrderStatus.REJECTED
_EXPIRED: Final = OrderStatus.EXPIRED
_NONE: Final = Reason.NONE
_USER_REQUEST: Final = Reason.USER_REQUEST
_STOP_FILLED: Final = Stop.FILLED
_STOP_BOOK: Final = Stop.BOOK
_STOP_SELF_TRADE: Final = Stop.SELF_TRADE
_STOP_HOLD: Final = Stop.HOLD


class Engine:
    """Starts empty, before the first batch; `restore` puts it anywhere else.

    An exception out of `apply` leaves it half changed: throw it away and restore another.
    """

    __slots__ = (
        "_books",
        "_dirty",
        "_orders",
        "_placed",
        "_set",
        "_touched",
        "_trades",
        "chain",
        "partition",
        "sequence",
        "time_us",
    )

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.sequence = 0
        self.chain = GENESIS_CHAIN
        self.time_us = 0
        self._books: dict[int, Book] = {}
        self._orders: dict[Any, Order] = {}  # Those that rest or are of this batch, by order id.
        # Of the batch under way: its orders (placed in it, or touched) and the books whose levels may have
        # changed, each once (their `in_batch` tells), books that traded or were set, and the trades.
        self._placed: list[Order] = []
        self._touched: list[Order] = []
        self._dirty: list[Book] = []
        self._set: dict[int, Book] = {}
        self._trades: list[Trade] = []

    # ---- state in and out -----------------------------------------------------------------------

    def restore(self, snapshot: Snapshot, pause: Pause | None = None) -> None:
        """Become the state of a snapshot. Orders may come in any sequence; best as `snapshot` gives them.

        A market without a state is one that the engine had not seen at the watermark; it has no
        orders, and its SetMarket is still to come. `pause` is called now and then, and changes nothing here:
        compiled code keeps the interpreter to itself until it calls somebody.
        """
        assert snapshot.partition == self.partition
        assert snapshot.engine_version <= ENGINE_VERSION, "a newer engine made this state"
        self.sequence, self.chain, self.time_us = snapshot.sequence, snapshot.chain, snapshot.time_us
        markets = {market.market_id: market for market in snapshot.markets}
        self._books = {
            state.market_id: restored_book(markets[state.market_id], state, snapshot.sequence)
            for state in snapshot.states
        }
        self._orders = {}
        for number, live in enumerate(in_order(snapshot.orders)):
            if pause is not None and number % PAUSE_ORDERS == 0:
                pause()
            order = restored_order(live)
            book = self._books[live.market_id]
            assert book.surplus_atoms(order) == 0, "a live order holds exactly what it needs"
            book.rest(order, 0)
            self._orders[order.key] = order
        assert len(self._orders) == len(snapshot.orders), "every order stands once"
        for book in self._books.values():
            book.bids.forget_changes()
            book.asks.forget_changes()

    def snapshot(self) -> Snapshot:
        """The whole state, between two batches; orders by (market, side, price, sequence)."""
        books = [book for _, book in sorted(self._books.items())]
        return Snapshot(
            self.partition,
            self.sequence,
            self.chain,
            self.time_us,
            ENGINE_VERSION,
            [market_now(book) for book in books],
            [market_state(book) for book in books],
            [
                live_order(order)
                for book in books
                for side in (book.bids, book.asks)
                for order in side.orders()
            ],
        )

    @property
    def resting_orders(self) -> int:
        """How many orders rest in all books: what one command can touch at most."""
        return len(self._orders)

    def books(self) -> list[BookUpdate]:
        """Every market's full book, by market id; changes nothing."""
        return [full_book(book, self.time_us) for _, book in sorted(self._books.items())]

    # ---- a batch --------------------------------------------------------------------------------

    def apply(self, batch: Batch, pause: Pause | None = None) -> Applied:
        """Apply the batch that follows; common.core.sequencing tells whether it does.

        `pause` as for `restore`: between two commands, of which each is as long as the makers it meets.
        """
        assert batch.partition == self.partition
        assert batch.first_sequence == self.sequence + 1
        assert batch.previous_chain == self.chain
        sequence = self.sequence
        for command in batch.commands:
            sequence += 1
            if pause is not None and sequence % PAUSE_COMMANDS == 0:
                pause()
            if isinstance(command, Place):
                self._place(command, sequence)
            elif isinstance(command, Cancel):
                order = self._orders.get(command.order_id)
                if order is not None and order.user_id == command.user_id:
                    self._cancel(order, sequence)
            elif isinstance(command, CancelAll):
                self._cancel_all(command, sequence)
            elif isinstance(command, SetMarket):
                self._set_market(command.market)
            elif isinstance(command, Skipped):
                self._skip(command, sequence)
            else:
                assert isinstance(command, Noop)
        self.sequence, self.chain, self.time_us = sequence, batch.chain, batch.time_us
        return Applied(self._settlement(batch), self._book_updates())

    def _settlement(self, batch: Batch) -> Settlement:
        orders = self._orders
        placed = self._placed
        placed += self._touched  # Those placed come by id, or nearly so: that is sorted in half of the time.
        placed.sort(key=_by_id)
        states = order_states(placed)
        for order in placed:
            order.released_atoms = 0
            order.in_batch = False
            if order.level is None:
                del orders[order.key]
        settlement = Settlement(
            batch.partition,
            batch.first_sequence,
            self.sequence,
            batch.time_us,
            batch.previous_chain,
            batch.chain,
            ENGINE_VERSION,
            self._trades,
            states,
            [market_state(book) for _, book in sorted(self._set.items())],
            self._digests(batch),
        )
        placed.clear()
        self._touched.clear()
        self._set.clear()
        self._trades = []
        return settlement

    def _digests(self, batch: Batch) -> list[BookDigest]:
        if not is_due(batch.first_sequence, self.sequence, DIGEST_EVERY, len(self._orders)):
            return []
        return [BookDigest(market_id, book_digest(book)) for market_id, book in sorted(self._books.items())]

    def _book_updates(self) -> list[BookUpdate]:
        updates: list[BookUpdate] = []
        for book in sorted(self._dirty, key=_market_id):
            book.in_batch = False
            previous, bids, asks = book.sequence, book.bids.take_changes(), book.asks.take_changes()
            if book.fresh:
                book.sequence, book.fresh = self.sequence, False
                updates.append(full_book(book, self.time_us))
            elif bids or asks:
                book.sequence = self.sequence
                last_trade_id = book.next_trade_id - 1
                updates.append(
                    BookUpdate(
                        book.market_id,
                        False,
                        self.sequence,
                        previous,
                        last_trade_id,
                        bids,
                        asks,
                        self.time_us,
                    )
                )
        self._dirty.clear()
        return updates

    # ---- the commands ---------------------------------------------------------------------------

    def _enter(self, command: Place, sequence: int) -> Order:
        order = Order(
            command.order_id,
            command.user_id,
            command.market_id,
            command.client_order_id,
            command.side,
            command.price_ticks,
            command.qty_lots,
            command.hold_atoms,
            sequence,
        )
        known = self._orders.setdefault(order.key, order)
        assert known is order, "an order is placed once"
        order.in_batch = True
        self._placed.append(order)
        return order

    def _skip(self, skipped: Skipped, sequence: int) -> None:
        if isinstance(skipped.command, Place):
            self._enter(skipped.command, sequence).end(_CANCELED, Reason.OPERATOR_SKIP)

    def _place(self, command: Place, sequence: int) -> None:
        order = self._enter(command, sequence)
        book = self._books.get(command.market_id)
        if book is None or book.status is not _ACTIVE:
            return order.end(_REJECTED, Reason.MARKET_HALTED)
        buying, limited = order.side is _BUY, command.type is _LIMIT
        by_quote = False
        if limited:
            limit_key = order.price_ticks if buying else -order.price_ticks
        else:
            limit_key = MAX_INT64
            if buying and order.left_lots == 0:
                by_quote = True
                order.left_lots = MAX_INT64  # As many as the money buys.
                if order.held_atoms > command.quote_atoms:
                    order.released_atoms = order.held_atoms - command.quote_atoms
                    order.held_atoms = command.quote_atoms
        surplus_atoms = book.surplus_atoms(order) if limited or not buying else 0
        if surplus_atoms < 0:
            return order.end(_REJECTED, Reason.HOLD_EXHAUSTED)
        best = (book.asks if buying else book.bids).best()
        crosses = best is not None and best.key <= limit_key
        if crosses and command.post_only:
            return order.end(_REJECTED, Reason.POST_ONLY_WOULD_CROSS)
        if command.time_in_force is _FOK and not fillable(book, order, limit_key, command.stp, by_quote):
            return order.end(_EXPIRED, Reason.FOK_NOT_FILLABLE)
        if not book.in_batch:
            self._changes(book)
        if not crosses and limited and command.time_in_force is _GTC and order.left_lots != 0:
            return book.rest(order, surplus_atoms)  # As most do.
        stop = _STOP_BOOK
        if crosses or order.left_lots == 0:
            before = len(self._trades)
            stop = take(book, order, limit_key, command.stp, self._trades, self._touched)
            if len(self._trades) != before:
                self._set[book.market_id] = book
        return self._conclude(command, book, order, stop, by_quote)

    def _conclude(self, command: Place, book: Book, order: Order, stop: Stop, by_quote: bool) -> None:
        """End the taker, or let it rest, once matching has stopped."""
        spent = by_quote and order.filled_lots > 0
        if stop is _STOP_FILLED or (spent and (stop is _STOP_HOLD or order.held_atoms == 0)):
            order.end(_FILLED, _NONE)
        elif stop is _STOP_SELF_TRADE:
            order.end(_CANCELED, Reason.SELF_TRADE)
        elif stop is _STOP_HOLD:
            order.end(_CANCELED, Reason.HOLD_EXHAUSTED)
        elif command.type is _LIMIT and command.time_in_force is _GTC:
            book.rest(order, book.surplus_atoms(order))
        else:
            order.end(_EXPIRED, Reason.UNFILLED_REMAINDER)

    def _cancel(self, order: Order, sequence: int) -> None:
        if order.level is None:
            return  # It ended earlier in this batch.
        book = self._books[order.market_id]
        book.remove(order)
        order.end(_CANCELED, _USER_REQUEST)
        order.touch(sequence, self._touched)
        if not book.in_batch:
            self._changes(book)

    def _changes(self, book: Book) -> None:
        book.in_batch = True
        self._dirty.append(book)

    def _cancel_all(self, command: CancelAll, sequence: int) -> None:
        if command.market_id == 0:
            books = list(self._books.values())
        else:
            found = self._books.get(command.market_id)
            books = [] if found is None else [found]
        for book in books:
            for order in book.orders_of(command.user_id):
                self._cancel(order, sequence)

    def _set_market(self, market: Market) -> None:
        book = self._books.get(market.market_id)
        if book is None:
            book = self._books[market.market_id] = Book(market)
            self._changes(book)
        book.status = market.status
        book.maker_fee_bps, book.taker_fee_bps = market.maker_fee_bps, market.taker_fee_bps
        self._set[market.market_id] = book


def _by_id(order: Order) -> Any:
    return order.key


def _market_id(book: Book) -> int:
    return book.market_id
