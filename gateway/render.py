"""From protobuf messages to the JSON of API.md. Decimals are strings, ids are strings."""

from collections.abc import Iterable
from functools import lru_cache

from common.core.messages import (
    Asset,
    Market,
    MarketStatus,
    OrderStatus,
    OrderType,
    Reason,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from common.core.units import atoms_to_text, price_to_text, qty_to_text, time_to_text
from common.shown import Account, account_json, price_or_none
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway import shapes
from gateway.shapes import Accepted, Book, Order


def market_json(market: Market) -> shapes.Market:
    return shapes.Market(
        symbol=market.symbol,
        base=market.base.symbol,
        quote=market.quote.symbol,
        tick_size=price_to_text(market, 1),
        lot_size=qty_to_text(market, 1),
        min_notional=atoms_to_text(market.quote, market.min_notional_atoms),
        maker_fee_bps=market.maker_fee_bps,
        taker_fee_bps=market.taker_fee_bps,
        status=MarketStatus(market.status).name,
    )


def book_json(market: Market, book: md.GetBookResponse) -> Book:
    return Book(
        symbol=market.symbol,
        sequence=book.sequence,
        bids=[_level(market, level) for level in book.bids],
        asks=[_level(market, level) for level in book.asks],
    )


def _level(market: Market, level: md.Level) -> tuple[str, str]:
    return price_to_text(market, level.price_ticks), qty_to_text(market, level.qty_lots)


def accepted_body(accepted: pb.Accepted) -> Accepted:
    return Accepted(
        str(accepted.order_id),
        accepted.client_order_id or None,
        accepted.symbol,
        accepted.sequence,
        "ACCEPTED",
        _batch_time(accepted.created_us),
    )


@lru_cache(maxsize=64)
def _batch_time(time_us: int) -> str:
    """All orders of one batch of a partition have one time."""
    return time_to_text(time_us)


def order_json(market: Market, order: pb.Order) -> Order:
    side = Side(order.side)
    return Order(
        order_id=str(order.order_id),
        client_order_id=order.client_order_id or None,
        symbol=market.symbol,
        side=side.name,
        type=OrderType(order.type).name,
        time_in_force=TimeInForce(order.time_in_force).name,
        post_only=order.post_only,
        stp=SelfTradePrevention(order.stp).name,
        price=price_or_none(market, order.price_ticks),
        quantity=qty_to_text(market, order.qty_lots) if order.qty_lots else None,
        quote_quantity=atoms_to_text(market.quote, order.quote_atoms) if order.quote_atoms else None,
        filled_quantity=qty_to_text(market, order.filled_lots),
        filled_quote=atoms_to_text(market.quote, order.filled_quote_atoms),
        fee=atoms_to_text(market.base if side is Side.BUY else market.quote, order.fee_atoms),
        fee_asset=(market.base if side is Side.BUY else market.quote).symbol,
        status=OrderStatus(order.status).name,
        reason=Reason(order.reason).name if order.reason else None,
        sequence=order.sequence,
        created_at=time_to_text(order.created_us),
        updated_at=time_to_text(order.updated_us),
    )


def accounts_json(assets: dict[int, Asset], accounts: Iterable[ty.Account]) -> list[Account]:
    """Accounts in assets of known markets; no market, no way to have got another asset."""
    return [
        account_json(assets[account.asset_id], account) for account in accounts if account.asset_id in assets
    ]
