"""What the engine's own objects look like from outside: in settlements, snapshots, book updates, digests."""

from hashlib import sha256
from typing import Final

from librt.strings import BytesWriter, write_i16_be, write_i64_be

from common.core.book import Book
from common.core.levels import Order
from common.core.messages import BookUpdate, LiveOrder, Market, MarketState, OrderState

_PIECE_BYTES: Final = 1 << 16  # Hashed at once: a call for each order would cost more than its hash.


def book_digest(book: Book) -> bytes:
    """SHA-256 over all that decides what the market does next: two engines that agree here go on the same.

    The market's id, status, fees, next trade id and last price, then each resting order, bids and then asks,
    by ascending price and then priority: numbers as 8 bytes, big-endian, then the client's id in UTF-8.
    """
    digest = sha256()
    piece = BytesWriter()
    write_i64_be(piece, book.market_id)
    write_i64_be(piece, book.status)
    write_i64_be(piece, book.maker_fee_bps)
    write_i64_be(piece, book.taker_fee_bps)
    write_i64_be(piece, book.next_trade_id)
    write_i64_be(piece, book.last_price_ticks)
    for side in (book.bids, book.asks):
        for level in side.by_price():
            order = level.oldest
            while order is not None:
                _add_digested(order, piece)
                order = order.newer
                if len(piece) >= _PIECE_BYTES:
                    digest.update(piece.getvalue())
                    piece = BytesWriter()
    digest.update(piece.getvalue())
    return digest.digest()


def _add_digested(order: Order, piece: BytesWriter) -> None:
    name = order.client_order_id.encode()
    write_i64_be(piece, order.order_id)
    write_i64_be(piece, order.user_id)
    write_i64_be(piece, order.price_ticks)
    write_i64_be(piece, order.left_lots)
    write_i64_be(piece, order.filled_lots)
    write_i64_be(piece, order.filled_quote_atoms)
    write_i64_be(piece, order.fee_atoms)
    write_i64_be(piece, order.held_atoms)
    write_i64_be(piece, order.sequence)
    write_i16_be(piece, len(name))
    piece.write(name)


def full_book(book: Book, time_us: int) -> BookUpdate:
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


def market_now(book: Book) -> Market:
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


def market_state(book: Book) -> MarketState:
    return MarketState(
        book.market_id,
        book.status,
        book.maker_fee_bps,
        book.taker_fee_bps,
        book.next_trade_id,
        book.last_price_ticks,
    )


def order_states(orders: list[Order]) -> list[OrderState]:
    """In one go: a call for each would cost as much as the state."""
    return [
        OrderState(
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
        for order in orders
    ]


def live_order(order: Order) -> LiveOrder:
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
