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
Noop       Changes nothing but the sequence. The skipped Place never came here, so the engine does not
           know what it held; whoever writes the Noop (the operator's path of TX2) releases that hold
           and ends the order with OPERATOR_SKIP.

Public views of the books are not part of the settlement. A book update's `previous` is the sequence
of the batch that last changed that book; after a restore, the watermark's. Both kinds of leader
publish `books()` first, whose sequences are those, so updates always chain to what was published.
"""

from typing import Final

from common.core.book import Book, Order
from common.core.match import Stop, fillable, take
from common.core.messages import (
    GENESIS_CHAIN,
    Applied,
    Batch,
    BookUpdate,
    Cancel,
    CancelAll,
    LiveOrder,
    Market,
    MarketState,
    MarketStatus,
    Noop,
    OrderState,
    OrderStatus,
    OrderType,
    Place,
    Reason,
    SetMarket,
    Settlement,
    Side,
    Snapshot,
    TimeInForce,
    Trade,
)
from common.core.units import MAX_INT64

ENGINE_VERSION = 1

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
        self._orders: dict[int, Order] = {}  # Those that rest, by order id.
        # Of the batch under way: orders by id, books whose levels may have changed, books that traded
        # or were set, and the trades.
        self._touched: dict[int, Order] = {}
        self._dirty: dict[int, Book] = {}
        self._set: dict[int, Book] = {}
        self._trades: list[Trade] = []

    # ---- state in and out -----------------------------------------------------------------------

    def restore(self, snapshot: Snapshot) -> None:
        """Become the state of a snapshot. Orders may come in any sequence; best by (side, price).

        A market without a state is one that the engine had not seen at the watermark; it has no
        orders, and its SetMarket is still to come.
        """
        assert snapshot.partition == self.partition
        assert snapshot.engine_version <= ENGINE_VERSION, "a newer engine made this state"
        self.sequence, self.chain, self.time_us = snapshot.sequence, snapshot.chain, snapshot.time_us
        markets = {market.market_id: market for market in snapshot.markets}
        self._books = {}
        for state in snapshot.states:
            book = self._books[state.market_id] = Book(markets[state.market_id])
            book.status = state.status
            book.maker_fee_bps, book.taker_fee_bps = state.maker_fee_bps, state.taker_fee_bps
            book.next_trade_id, book.last_price_ticks = state.next_trade_id, state.last_price_ticks
            book.sequence, book.fresh = snapshot.sequence, False
        self._orders = {}
        for live in sorted(snapshot.orders, key=_priority):
            order = Order(
                live.order_id,
                live.user_id,
                live.market_id,
                live.client_order_id,
                live.side,
                live.price_ticks,
                live.qty_lots - live.filled_lots,
                live.held_atoms,
                live.sequence,
            )
            order.filled_lots, order.filled_quote_atoms = live.filled_lots, live.filled_quote_atoms
            order.fee_atoms = live.fee_atoms
            self._books[live.market_id].rest(order)
            assert order.released_atoms == 0, "a live order holds exactly what it needs"
            self._orders[live.order_id] = order
        assert len(self._orders) == len(snapshot.orders), "every order stands once"
        for book in self._books.values():
            book.bids.changed.clear()
            book.asks.changed.clear()

    def snapshot(self) -> Snapshot:
        """The whole state, between two batches; orders by (market, side, price, sequence)."""
        books = [book for _, book in sorted(self._books.items())]
        return Snapshot(
            self.partition,
            self.sequence,
            self.chain,
            self.time_us,
            ENGINE_VERSION,
            [_market_now(book) for book in books],
            [_market_state(book) for book in books],
            [_live(order) for book in books for side in (book.bids, book.asks) for order in side.orders()],
        )

    @property
    def resting_orders(self) -> int:
        """How many orders rest in all books: what one command can touch at most."""
        return len(self._orders)

    def books(self) -> list[BookUpdate]:
        """Every market's full book, by market id; changes nothing."""
        return [_full(book, self.time_us) for _, book in sorted(self._books.items())]

    # ---- a batch --------------------------------------------------------------------------------

    def apply(self, batch: Batch) -> Applied:
        """Apply the batch that follows; common.core.sequencing tells whether it does."""
        assert batch.partition == self.partition
        assert batch.first_sequence == self.sequence + 1
        assert batch.previous_chain == self.chain
        sequence = self.sequence
        for command in batch.commands:
            sequence += 1
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
            else:
                assert isinstance(command, Noop)
        self.sequence, self.chain, self.time_us = sequence, batch.chain, batch.time_us
        return Applied(self._settlement(batch), self._book_updates())

    def _settlement(self, batch: Batch) -> Settlement:
        states: list[OrderState] = []
        for _, order in sorted(self._touched.items()):
            states.append(_order_state(order))
            order.released_atoms = 0
            if order.level is None:
                self._orders.pop(order.order_id, None)
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
            [_market_state(book) for _, book in sorted(self._set.items())],
        )
        self._touched.clear()
        self._set.clear()
        self._trades = []
        return settlement

    def _book_updates(self) -> list[BookUpdate]:
        updates: list[BookUpdate] = []
        for _, book in sorted(self._dirty.items()):
            previous, bids, asks = book.sequence, book.bids.take_changes(), book.asks.take_changes()
            if book.fresh:
                book.sequence, book.fresh = self.sequence, False
                updates.append(_full(book, self.time_us))
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

    def _place(self, command: Place, sequence: int) -> None:
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
        assert order.order_id not in self._orders, "an order is placed once"
        self._touched[order.order_id] = order
        book = self._books.get(command.market_id)
        if book is None or book.status is not _ACTIVE:
            return order.end(_REJECTED, Reason.MARKET_HALTED)
        buying, limited = order.side is _BUY, command.type is _LIMIT
        by_quote = False
        limit_key = MAX_INT64
        if limited:
            limit_key = order.price_ticks if buying else -order.price_ticks
        elif buying and order.left_lots == 0:
            by_quote = True
            order.left_lots = MAX_INT64  # As many as the money buys.
            if order.held_atoms > command.quote_atoms:
                order.released_atoms = order.held_atoms - command.quote_atoms
                order.held_atoms = command.quote_atoms
        if (limited or not buying) and order.held_atoms < book.needed_atoms(order):
            return order.end(_REJECTED, Reason.HOLD_EXHAUSTED)
        if command.post_only:
            best = (book.asks if buying else book.bids).best()
            if best is not None and best.key <= limit_key:
                return order.end(_REJECTED, Reason.POST_ONLY_WOULD_CROSS)
        if command.time_in_force is _FOK and not fillable(book, order, limit_key, command.stp, by_quote):
            return order.end(_EXPIRED, Reason.FOK_NOT_FILLABLE)
        self._dirty[book.market_id] = book
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
            book.rest(order)
            self._orders[order.order_id] = order
        else:
            order.end(_EXPIRED, Reason.UNFILLED_REMAINDER)

    def _cancel(self, order: Order, sequence: int) -> None:
        if order.level is None:
            return  # It ended earlier in this batch.
        book = self._books[order.market_id]
        book.remove(order)
        order.end(_CANCELED, _USER_REQUEST)
        order.touched = sequence
        self._touched[order.order_id] = order
        self._dirty[book.market_id] = book

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
            self._dirty[market.market_id] = book
        book.status = market.status
        book.maker_fee_bps, book.taker_fee_bps = market.maker_fee_bps, market.taker_fee_bps
        self._set[market.market_id] = book


def _priority(live: LiveOrder) -> int:
    return live.sequence


def _full(book: Book, time_us: int) -> BookUpdate:
    return BookUpdate(
        book.market_id,
        True,
        book.sequence,
        0,
        book.next_trade_id - 1,
        book.bids.totals(),
        book.asks.totals(),
        time_us,
    )


def _market_now(book: Book) -> Market:
    market = book.market
    return Market(
        market.market_id,
        market.symbol,
        market.base,
        market.quote,
        market.partition,
        market.tick_atoms,
        market.lot_atoms,
        market.min_notional_atoms,
        book.maker_fee_bps,
        book.taker_fee_bps,
        book.status,
    )


def _market_state(book: Book) -> MarketState:
    return MarketState(
        book.market_id,
        book.status,
        book.maker_fee_bps,
        book.taker_fee_bps,
        book.next_trade_id,
        book.last_price_ticks,
    )


def _order_state(order: Order) -> OrderState:
    return OrderState(
        order.order_id,
        order.user_id,
        order.market_id,
        order.client_order_id,
        order.side,
        order.status,
        order.reason,
        order.filled_lots,
        order.filled_quote_atoms,
        order.fee_atoms,
        order.held_atoms,
        order.released_atoms,
        order.touched,
    )


def _live(order: Order) -> LiveOrder:
    return LiveOrder(
        order.order_id,
        order.user_id,
        order.market_id,
        order.client_order_id,
        order.side,
        order.price_ticks,
        order.filled_lots + order.left_lots,
        order.filled_lots,
        order.filled_quote_atoms,
        order.fee_atoms,
        order.held_atoms,
        order.sequence,
    )
