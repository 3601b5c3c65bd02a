"""A taker: buys or sells at once what the book has, up to a limit, and shows what became of it.

    python taker.py --symbol BTC-USD --side BUY --quantity 0.01 --slippage-bps 50

It sends an IOC limit order: what cannot be had within --slippage-bps of the best price is not had. Without
--token (or EXCHANGE_TOKEN) it joins a local exchange as a new user.
"""

import argparse
import os
import sys
from decimal import ROUND_DOWN, ROUND_UP, Decimal

import anyio

from exchange_client import (
    Exchange,
    LimitOrder,
    Market,
    OrderBook,
    OrdersEvent,
    OrderUpdate,
    Subscription,
    Token,
)


def crossing(
    market: Market, book: OrderBook, side: str, quantity: Decimal, slippage_bps: int
) -> LimitOrder | None:
    """The order that takes the other side of the book; None when there is nothing to take."""
    best = book.best_ask if side == "BUY" else book.best_bid
    if best is None:
        return None
    slip = best.price * slippage_bps / 10_000
    if side == "BUY":
        price = market.price(best.price + slip, ROUND_DOWN)
    else:
        price = market.price(best.price - slip, ROUND_UP)
    return LimitOrder(
        symbol=market.symbol,
        side="BUY" if side == "BUY" else "SELL",
        price=price,
        quantity=market.quantity(quantity),
        time_in_force="IOC",
    )


async def end_of(orders: Subscription, order_id: str) -> OrderUpdate:
    """The order as it ended, from the stream of the user's own orders."""
    async for event in orders:
        if isinstance(event, OrdersEvent):
            for order in event.orders:
                if order.order_id == order_id and not order.status.live:
                    return order
    raise RuntimeError("the stream ended before the order")


async def take(exchange: Exchange, args: argparse.Namespace) -> int:
    """0 when something was traded."""
    market = (await exchange.markets())[args.symbol]
    async with exchange.stream() as stream:
        orders = stream.subscribe("orders")
        await anext(orders)  # Its snapshot: from here on, nothing is missed.
        book = stream.book(args.symbol)
        await book.ready()
        order = crossing(market, book, args.side, args.quantity, args.slippage_bps)
        if order is None:
            print("nothing to take", flush=True)
            return 1
        accepted = await exchange.place(order)
        ended = await end_of(orders, accepted.order_id)
    print(f"{ended.status}: {ended.side} {ended.filled_quantity} for {ended.filled_quote}", flush=True)
    async for fill in exchange.fills(order_id=accepted.order_id):
        print(f"  {fill.quantity} at {fill.price}, fee {fill.fee} {fill.fee_asset}", flush=True)
    return 0 if ended.filled_quantity else 1


async def token_of(args: argparse.Namespace) -> Token:
    """The one that was given, or that of a new test user."""
    if args.token:
        return Token(args.token)
    async with Exchange(args.url) as anybody:
        joined = await anybody.join()
    print(f"joined as user {joined.user_id}", flush=True)
    return Token(joined.token)


async def main() -> int:
    parser = argparse.ArgumentParser(description="Take what the book has.")
    parser.add_argument("--url", default="http://127.0.0.1:8100")
    parser.add_argument("--token", default=os.environ.get("EXCHANGE_TOKEN", ""))
    parser.add_argument("--symbol", default="BTC-USD")
    parser.add_argument("--side", choices=["BUY", "SELL"], default="BUY")
    parser.add_argument("--quantity", type=Decimal, default=Decimal("0.01"))
    parser.add_argument("--slippage-bps", type=int, default=50, help="from the best price")
    args = parser.parse_args()
    async with Exchange(args.url, await token_of(args)) as exchange:
        return await take(exchange, args)


if __name__ == "__main__":
    sys.exit(anyio.run(main))
