"""A market maker: a bid and an ask around the middle of the book, moved when it moves, taken back at the end.

    python market_maker.py --symbol BTC-USD --spread-bps 20 --quantity 0.01

An example, not a strategy: it has no opinion about the price and no limit to what it may own. Without --token
(or EXCHANGE_TOKEN) it joins a local exchange as a new user. Ctrl-C cancels its orders and ends it.
"""

import argparse
import os
import signal
from contextlib import suppress
from decimal import ROUND_DOWN, ROUND_UP, Decimal

import anyio

from exchange_client import (
    Accepted,
    Exchange,
    FillsEvent,
    LimitOrder,
    Market,
    OrderBook,
    OrderNotLive,
    OutOfSync,
    Stream,
    Token,
)

LOOK_S = 0.2  # At most so often are the quotes moved.


class Quotes:
    """The two orders that rest in the book."""

    def __init__(self, exchange: Exchange, market: Market, spread_bps: int, quantity: Decimal) -> None:
        self._exchange = exchange
        self._market = market
        self._half = Decimal(spread_bps) / 20_000  # Of the price.
        self._quantity = market.quantity(quantity)
        self._resting: list[str] = []
        self._middle = Decimal(0)

    async def move(self, middle: Decimal) -> None:
        """Quote around this price, unless that is nearly where the quotes are."""
        if self._resting and abs(middle - self._middle) < middle * self._half / 4:
            return
        await self.take_back()
        bid = self._market.price(middle * (1 - self._half), ROUND_DOWN)
        ask = self._market.price(middle * (1 + self._half), ROUND_UP)
        results = await self._exchange.place_batch([self._order("BUY", bid), self._order("SELL", ask)])
        for result in results:
            if isinstance(result, Accepted):
                self._resting.append(result.order_id)
            else:
                print(f"not quoted: {result}", flush=True)
        self._middle = middle
        print(f"quoting {bid} / {ask}", flush=True)

    async def take_back(self) -> None:
        """Cancel both; one that was filled has nothing left to cancel."""
        for order_id in self._resting:
            try:
                await self._exchange.cancel(order_id)
            except OrderNotLive:
                print(f"{order_id} was filled", flush=True)
        self._resting.clear()

    def _order(self, side: str, price: Decimal) -> LimitOrder:
        """Post-only: it never takes, so that the maker's fee is all that it costs."""
        return LimitOrder(
            symbol=self._market.symbol,
            side="BUY" if side == "BUY" else "SELL",
            price=price,
            quantity=self._quantity,
            post_only=True,
        )


async def quote(book: OrderBook, quotes: Quotes, start: Decimal) -> None:
    """For ever: follow the middle of the book; where there is none, begin at `start`."""
    seen = 0
    while True:
        with suppress(OutOfSync):  # Interrupted: the quotes stay until the book is whole again.
            await quotes.move(book.mid or start)
        seen = await book.changed(seen)
        await anyio.sleep(LOOK_S)


async def report(stream: Stream) -> None:
    """Print each fill once."""
    async for event in stream.subscribe("fills"):
        if isinstance(event, FillsEvent) and not event.snapshot:
            for fill in event.fills:
                print(
                    f"{fill.side} {fill.quantity} at {fill.price}, fee {fill.fee} {fill.fee_asset}",
                    flush=True,
                )


async def run(args: argparse.Namespace, token: Token) -> None:
    async with Exchange(args.url, token) as exchange, exchange.stream() as stream:
        market = (await exchange.markets())[args.symbol]
        last = (await exchange.ticker(args.symbol)).last
        book = stream.book(args.symbol)
        await book.ready()
        quotes = Quotes(exchange, market, args.spread_bps, args.quantity)
        try:
            with anyio.move_on_after(args.seconds or float("inf")):
                async with anyio.create_task_group() as group:
                    group.start_soon(end_on_signal, group.cancel_scope)
                    group.start_soon(report, stream)
                    await quote(book, quotes, last or args.price)
        finally:
            with anyio.CancelScope(shield=True):
                print(f"canceling {await exchange.cancel_all(args.symbol)} orders", flush=True)


async def end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def token_of(args: argparse.Namespace) -> Token:
    """The one that was given, or that of a new test user."""
    if args.token:
        return Token(args.token)
    async with Exchange(args.url) as anybody:
        joined = await anybody.join()
    print(f"joined as user {joined.user_id}", flush=True)
    return Token(joined.token)


async def main() -> None:
    parser = argparse.ArgumentParser(description="Quote both sides of a market.")
    parser.add_argument("--url", default="http://127.0.0.1:8100")
    parser.add_argument("--token", default=os.environ.get("EXCHANGE_TOKEN", ""))
    parser.add_argument("--symbol", default="BTC-USD")
    parser.add_argument("--spread-bps", type=int, default=20, help="between bid and ask")
    parser.add_argument("--quantity", type=Decimal, default=Decimal("0.01"), help="of each quote")
    parser.add_argument("--price", type=Decimal, default=Decimal(65_000), help="where nobody has traded yet")
    parser.add_argument("--seconds", type=float, default=0, help="how long; 0: until Ctrl-C")
    args = parser.parse_args()
    await run(args, await token_of(args))


if __name__ == "__main__":
    anyio.run(main)
