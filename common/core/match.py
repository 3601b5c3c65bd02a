"""What happens when an order meets the book.

The best maker is met again and again, until the taker has what it wants or one of the other three
ends of `Stop` comes first. At each maker the checks are, in this order: does the price cross; can
the taker's hold buy one more lot at it; is it the taker's own order (self-trade prevention).
"""

from enum import IntEnum
from typing import Final

from common.core.book import Book
from common.core.fees import fee_atoms
from common.core.levels import Level, Order
from common.core.messages import OrderStatus, Reason, SelfTradePrevention, Side, Trade


class Stop(IntEnum):
    """Why matching ended."""

    FILLED = 1  # The taker has all its lots.
    BOOK = 2  # Nobody is left who crosses.
    HOLD = 3  # The rest of the hold does not buy one more lot at the best price.
    SELF_TRADE = 4  # The taker met its owner, and its mode cancels it.


# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_BUY: Final = Side.BUY
_PARTIALLY_FILLED: Final = OrderStatus.PARTIALLY_FILLED
_FILLED: Final = OrderStatus.FILLED
_CANCELED: Final = OrderStatus.CANCELED
_NONE: Final = Reason.NONE
_STOP_FILLED: Final = Stop.FILLED
_STOP_SELF_TRADE: Final = Stop.SELF_TRADE
_STOP_HOLD: Final = Stop.HOLD
_STOP_BOOK: Final = Stop.BOOK
_CANCEL_TAKER: Final = SelfTradePrevention.CANCEL_TAKER
_CANCEL_MAKER: Final = SelfTradePrevention.CANCEL_MAKER


def take(
    book: Book,
    taker: Order,
    limit_key: int,
    stp: SelfTradePrevention,
    trades: list[Trade],
    touched: list[Order],
) -> Stop:
    """Match the taker against the other side, up to keys of `limit_key`; appends the trades.

    Makers that traded or were canceled are added to `touched`. The taker is not ended here.
    """
    buying = taker.side is _BUY
    opposite = book.asks if buying else book.bids
    while taker.left_lots > 0:
        level = opposite.best()
        if level is None or level.key > limit_key:
            return _STOP_BOOK
        lot_cost_atoms = level.price_ticks * book.atoms_per_tick_lot
        if buying and lot_cost_atoms > taker.held_atoms:
            return _STOP_HOLD
        maker = level.oldest
        assert maker is not None
        if maker.user_id != taker.user_id:
            lots = maker.left_lots if maker.left_lots < taker.left_lots else taker.left_lots
            if buying and lots * lot_cost_atoms > taker.held_atoms:
                lots = taker.held_atoms // lot_cost_atoms
            maker.touch(taker.sequence, touched)
            trades.append(_fill(book, taker, maker, level.price_ticks, lots))
            opposite.reduce(level, lots)
            if maker.left_lots == 0:
                book.remove(maker)
                maker.end(_FILLED, _NONE)
            continue
        if stp is not _CANCEL_TAKER:
            maker.touch(taker.sequence, touched)
            book.remove(maker)
            maker.end(_CANCELED, Reason.SELF_TRADE)
        if stp is not _CANCEL_MAKER:
            return _STOP_SELF_TRADE
    return _STOP_FILLED


def _fill(book: Book, taker: Order, maker: Order, price_ticks: int, lots: int) -> Trade:
    """Move `lots` at the maker's price between the two orders; the level's total is the caller's."""
    quote_atoms = lots * price_ticks * book.atoms_per_tick_lot
    base_atoms = lots * book.lot_atoms
    if taker.side is _BUY:
        taker.held_atoms -= quote_atoms
        maker.held_atoms -= base_atoms
        taker_fee_atoms = fee_atoms(base_atoms, book.taker_fee_bps)
        maker_fee_atoms = fee_atoms(quote_atoms, book.maker_fee_bps)
    else:
        taker.held_atoms -= base_atoms
        maker.held_atoms -= quote_atoms
        taker_fee_atoms = fee_atoms(quote_atoms, book.taker_fee_bps)
        maker_fee_atoms = fee_atoms(base_atoms, book.maker_fee_bps)
    taker.left_lots -= lots
    taker.filled_lots += lots
    taker.filled_quote_atoms += quote_atoms
    taker.fee_atoms += taker_fee_atoms
    maker.left_lots -= lots
    maker.filled_lots += lots
    maker.filled_quote_atoms += quote_atoms
    maker.fee_atoms += maker_fee_atoms
    maker.status = _PARTIALLY_FILLED
    assert taker.held_atoms >= 0, "the taker never spends beyond its hold"
    assert maker.held_atoms >= 0, "the maker never spends beyond its hold"
    trade_id = book.next_trade_id
    book.next_trade_id = trade_id + 1
    book.last_price_ticks = price_ticks
    return Trade(
        book.market_id,
        trade_id,
        taker.sequence,
        price_ticks,
        lots,
        taker.side,
        maker.order_id,
        taker.order_id,
        maker.user_id,
        taker.user_id,
        maker_fee_atoms,
        taker_fee_atoms,
    )


def fillable(book: Book, taker: Order, limit_key: int, stp: SelfTradePrevention, by_quote: bool) -> bool:
    """Whether `take` would give an untouched taker all it wants (FOK); changes nothing.

    Self-trade prevention counts as it would act: with CANCEL_MAKER the owner's orders give nothing
    and are passed by; with the other modes the first of them ends the taker, so only what stands
    before it counts. `by_quote`: the taker wants to spend its hold, to less than one more lot.
    """
    buying = taker.side is _BUY
    meets_itself = book.has_orders_of(taker.user_id)
    left_lots, held_atoms = taker.left_lots, taker.held_atoms
    for level in (book.asks if buying else book.bids).best_first():
        if level.key > limit_key:
            break
        lot_cost_atoms = level.price_ticks * book.atoms_per_tick_lot
        if buying and lot_cost_atoms > held_atoms:
            return by_quote and held_atoms < taker.held_atoms
        offered, blocked = _offered(level, taker.user_id, stp) if meets_itself else (level.total_lots, False)
        lots = min(offered, left_lots)
        if buying:
            lots = min(lots, held_atoms // lot_cost_atoms)
            held_atoms -= lots * lot_cost_atoms
        left_lots -= lots
        if left_lots == 0:
            return True
        if lots < offered:
            return by_quote
        if blocked:
            return by_quote and lot_cost_atoms > held_atoms
    return by_quote and held_atoms == 0


def _offered(level: Level, user_id: int, stp: SelfTradePrevention) -> tuple[int, bool]:
    """The lots that the level gives this user, and whether self-trade prevention ends the user there."""
    lots = 0
    order = level.oldest
    while order is not None:
        if order.user_id != user_id:
            lots += order.left_lots
        elif stp is not _CANCEL_MAKER:
            return lots, True
        order = order.newer
    return lots, False
