"""The stream on a real exchange, through a proxy that cuts it, on both event loops."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from exchange_client import (
    BalancesEvent,
    Event,
    Exchange,
    FillsEvent,
    LimitOrder,
    OrderBook,
    OrdersEvent,
    OrderStatus,
    Side,
    Subscription,
    Token,
    Unauthenticated,
    UnknownSymbol,
)
from tests.harness import exchange as harness
from tests.integration.clients.cutting import cutting

pytestmark = pytest.mark.anyio

SYMBOL = "ETH-USD"
WAIT_S = 20.0


@asynccontextmanager
async def trader(exchange: harness.Exchange) -> AsyncIterator[Exchange]:
    async with Exchange(exchange.base_url, Token(exchange.join().token)) as bot:
        yield bot
        await bot.cancel_all()


def limit(side: Side, price: int) -> LimitOrder:
    return LimitOrder(symbol=SYMBOL, side=side, price=price, quantity="0.1")


async def buy(bot: Exchange, quantity: str) -> None:
    """At once, whatever is sold below 62,000."""
    await bot.place(
        LimitOrder(symbol=SYMBOL, side="BUY", price=62_000, quantity=quantity, time_in_force="IOC")
    )


async def until(subscription: Subscription, good: Callable[[Event], bool]) -> list[Event]:
    """All events up to the good one."""
    events = []
    with anyio.fail_after(WAIT_S):
        async for event in subscription:
            events.append(event)
            if good(event):
                break
    return events


async def same_as_asked(bot: Exchange, book: OrderBook, best_bid: int) -> None:
    """Once the exchange shows this bid, the book is what GET /orderbook shows at the same sequence."""
    with anyio.fail_after(WAIT_S):
        while True:
            await book.ready()
            asked = await bot.orderbook(SYMBOL, 1000)
            told = asked.bids and asked.bids[0].price == best_bid
            if told and book.synced and book.sequence == asked.sequence:
                break
            await anyio.sleep(0.02)
    assert book.bids() == asked.bids
    assert book.asks() == asked.asks


async def test_a_book_stays_that_of_the_exchange_across_cuts(exchange: harness.Exchange) -> None:
    async with (
        cutting(exchange.ports.gateway) as proxy,
        trader(exchange) as bot,
        Exchange(proxy.url) as watcher,
        watcher.stream() as stream,
    ):
        book = stream.book(SYMBOL)
        await book.ready()
        for round_ in range(3):
            await bot.place_batch([limit("BUY", 20_000 + 10 * round_ + n) for n in range(5)])
            await bot.place_batch([limit("SELL", 70_000 - 10 * round_ - n) for n in range(5)])
            seen, connections = book.version, stream.connections
            proxy.cut_all()
            with anyio.fail_after(WAIT_S):
                while stream.connections == connections:
                    seen = await book.changed(seen)
            await bot.place(limit("BUY", 25_000 + round_))
            await same_as_asked(bot, book, 25_000 + round_)


def has_order(order_id: str, status: OrderStatus) -> Callable[[Event], bool]:
    return lambda event: (
        isinstance(event, OrdersEvent)
        and any((one.order_id, one.status) == (order_id, status) for one in event.orders)
    )


def has_fill(order_id: str) -> Callable[[Event], bool]:
    return lambda event: (
        isinstance(event, FillsEvent) and any(fill.order_id == order_id for fill in event.fills)
    )


async def test_nothing_of_ones_own_is_missed_while_the_stream_is_away(exchange: harness.Exchange) -> None:
    token = Token(exchange.join().token)
    async with (
        cutting(exchange.ports.gateway) as proxy,
        trader(exchange) as other,
        Exchange(proxy.url, token) as bot,
        bot.stream() as stream,
    ):
        orders, money = stream.subscribe("orders"), stream.subscribe("fills", "balances")
        await until(orders, lambda event: event.snapshot)
        first = await bot.place(limit("SELL", 60_000))
        stays = await bot.place(limit("SELL", 61_000))
        await until(orders, has_order(stays.order_id, OrderStatus.OPEN))
        await until(money, lambda event: isinstance(event, FillsEvent) and event.snapshot)
        async with Exchange(exchange.base_url, token) as same_user:  # The bot itself is shut out now.
            proxy.shut = True
            proxy.cut_all()
            short = await same_user.place(limit("SELL", 60_001))
            await buy(other, "0.2")
            with anyio.fail_after(WAIT_S):
                while (await same_user.order(short.order_id)).status.live:
                    await anyio.sleep(0.02)
            proxy.shut = False
        told = await until(orders, lambda event: event.snapshot)
        ended = [event for event in told[:-1] if isinstance(event, OrdersEvent)]
        assert [one.order_id for event in ended for one in event.orders] == [first.order_id, short.order_id]
        live = told[-1]
        assert isinstance(live, OrdersEvent)
        assert [one.order_id for one in live.orders] == [stays.order_id]
        await buy(other, "0.05")
        events = await until(money, has_fill(stays.order_id))
        fills = [fill.order_id for event in events if isinstance(event, FillsEvent) for fill in event.fills]
        assert fills == [first.order_id, short.order_id, stays.order_id]
        assert any(isinstance(event, BalancesEvent) and event.snapshot for event in events)
        await bot.cancel_all()


async def test_refusals_reach_those_who_listen(exchange: harness.Exchange) -> None:
    async with Exchange(exchange.base_url, Token("nobody")) as bot, bot.stream() as stream:
        own, good = stream.subscribe("orders"), stream.subscribe(f"klines:{SYMBOL}:1m", f"ticker:{SYMBOL}")
        with anyio.fail_after(WAIT_S):
            with pytest.raises(Unauthenticated):
                await anext(own)
            with pytest.raises(UnknownSymbol):
                await stream.book("DOGE-USD").ready()
            assert {(await anext(good)).channel.split(":")[0] for _ in range(2)} == {"klines", "ticker"}
