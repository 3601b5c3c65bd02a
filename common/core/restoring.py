"""The engine's own objects, made of a snapshot: the way back from `common.core.outward`."""

from common.core.book import Book
from common.core.levels import Order
from common.core.messages import LiveOrder, Market, MarketState


def restored_book(market: Market, state: MarketState, sequence: int) -> Book:
    """Without its orders; `sequence` is the watermark's."""
    book = Book(market)
    book.status = state.status
    book.maker_fee_bps, book.taker_fee_bps = state.maker_fee_bps, state.taker_fee_bps
    book.next_trade_id, book.last_price_ticks = state.next_trade_id, state.last_price_ticks
    book.sequence, book.fresh = sequence, False
    return book


def restored_order(live: LiveOrder) -> Order:
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
    return order


def in_order(orders: list[LiveOrder]) -> list[LiveOrder]:
    """The orders so that each joins the end of its queue."""
    return orders if _are_in_order(orders) else sorted(orders, key=_priority)


def _priority(live: LiveOrder) -> int:
    return live.sequence


def _are_in_order(orders: list[LiveOrder]) -> bool:
    """Whether they stand by market, side, price and priority, so that each joins the end of its queue.

    A million orders are sorted in a second or two, and looked over in a tenth.
    """
    before: LiveOrder | None = None
    for live in orders:
        if before is not None:
            if (
                live.price_ticks == before.price_ticks
                and live.side is before.side
                and live.market_id == before.market_id
            ):
                if live.sequence <= before.sequence:
                    return False
            elif (live.market_id, live.side, live.price_ticks) < (
                before.market_id,
                before.side,
                before.price_ticks,
            ):
                return False
        before = live
    return True
