"""What a bot does in a day, through the client, on both event loops."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal

import anyio
import pytest

from exchange_client import (
    DuplicateClientOrderId,
    Exchange,
    InsufficientFunds,
    InvalidPrice,
    LimitOrder,
    MarketOrder,
    Order,
    OrderNotFound,
    OrderNotLive,
    OrderStatus,
    Token,
    Unauthenticated,
    UnknownSymbol,
)
from tests.harness import exchange as harness

pytestmark = pytest.mark.anyio

SYMBOL = "ETH-USD"
ONE, PRICE = Decimal(1), Decimal(3000)


@pytest.fixture
async def bot(exchange: harness.Exchange) -> AsyncIterator[Exchange]:
    async with Exchange(exchange.base_url, Token(exchange.join().token)) as bot:
        yield bot
        await bot.cancel_all()


def limit(price: object, quantity: object = "0.1", side: str = "BUY", **more: object) -> LimitOrder:
    fields = {"symbol": SYMBOL, "side": side, "price": price, "quantity": quantity}
    return LimitOrder(**(fields | more))  # type: ignore[arg-type]


async def until(bot: Exchange, order_id: str, good: Callable[[Order], bool]) -> Order:
    with anyio.fail_after(15):
        while not good(order := await bot.order(order_id)):
            await anyio.sleep(0.01)
    return order


async def test_a_trade_and_all_that_can_be_asked_about_it(exchange: harness.Exchange, bot: Exchange) -> None:
    market = (await bot.markets())[SYMBOL]
    assert (market.tick_size, market.lot_size, market.status) == (
        Decimal("0.01"),
        Decimal("0.0001"),
        "ACTIVE",
    )
    asked = limit(PRICE, 2, "SELL")
    resting = await bot.place(asked)
    assert (resting.client_order_id, resting.repeated) == (asked.client_order_id, False)
    await until(bot, resting.order_id, lambda order: order.status == OrderStatus.OPEN)
    assert (await bot.accounts())["ETH"].held == 2
    async with Exchange(exchange.base_url, Token(exchange.join().token)) as other:
        bought = MarketOrder(symbol=SYMBOL, side="BUY", quote_quantity=3000)
        filled = await other.place_and_settle(bought, within_s=10)
        assert (await other.place_and_settle(bought)).order_id == filled.order_id
        assert filled.status == OrderStatus.FILLED
        assert (filled.filled_quantity, filled.filled_quote) == (ONE, PRICE)
        [fill] = [fill async for fill in other.fills(order_id=filled.order_id)]
        assert (fill.price, fill.fee, fill.fee_asset) == (PRICE, Decimal("0.002"), "ETH")
        assert fill.liquidity == "TAKER"
    book = await bot.orderbook(SYMBOL, 5)
    trades = await bot.trades(SYMBOL, 1)
    candle = (await bot.klines(SYMBOL, "1m"))[-1]
    ticker = await bot.ticker(SYMBOL)
    assert (trades[0].quantity, candle.close, ticker.last) == (ONE, PRICE, PRICE)
    assert len(book.bids) <= 5
    assert abs((trades[0].time - await bot.time()).total_seconds()) < 60
    canceling = await bot.cancel(resting.order_id)
    assert canceling.order_id == resting.order_id
    ended = await until(bot, resting.order_id, lambda order: not order.status.live)
    assert (ended.status, ended.reason, ended.filled_quantity) == (OrderStatus.CANCELED, "USER_REQUEST", ONE)
    with pytest.raises(OrderNotLive):
        await bot.cancel(resting.order_id)
    await bot.recharge()


async def test_an_order_is_the_same_order_however_often_it_is_placed(bot: Exchange) -> None:
    order = limit("2000")
    first = await bot.place(order)
    again = await bot.place(order)
    assert (again.order_id, again.repeated) == (first.order_id, True)
    with pytest.raises(DuplicateClientOrderId):
        await bot.place(limit("2001", client_order_id=order.client_order_id))
    found = await bot.find_order(order.client_order_id)
    assert found is not None
    assert found.order_id == first.order_id
    assert await bot.find_order("nobody-s") is None


async def test_a_batch_and_pages_of_orders(bot: Exchange) -> None:
    orders = [limit(1000 + n, "0.01") for n in range(12)] + [limit("1.001"), limit(1000, 10_000)]
    *good, wrong, dear = await bot.place_batch(orders)
    assert isinstance(wrong, InvalidPrice)
    assert isinstance(dear, InsufficientFunds)
    placed = {accepted.order_id for accepted in good if not isinstance(accepted, Exception)}
    listed = [order async for order in bot.orders(symbol=SYMBOL, status=OrderStatus.OPEN)]
    assert {order.order_id for order in listed} == placed
    assert len(placed) == 12
    began = min(order.created_at for order in listed)
    assert {order.order_id async for order in bot.orders(since=began, side="BUY")} == placed
    assert [order async for order in bot.orders(until=began)] == []
    assert await bot.place_batch([]) == []
    assert await bot.cancel_all(SYMBOL) == 12


async def test_refusals_have_names(exchange: harness.Exchange, bot: Exchange) -> None:
    with pytest.raises(UnknownSymbol):
        await bot.ticker("DOGE-USD")
    with pytest.raises(OrderNotFound):
        await bot.order("123")
    with pytest.raises(InsufficientFunds) as poor:
        await bot.place(limit(3000, 100_000))
    assert poor.value.status == 422
    assert poor.value.request_id
    async with Exchange(exchange.base_url, Token("nobody")) as nobody:
        with pytest.raises(Unauthenticated):
            await nobody.accounts()


async def test_a_newcomer_joins(exchange: harness.Exchange) -> None:
    async with Exchange(exchange.base_url) as anybody:
        joined = await anybody.join()
    assert {account.asset for account in joined.balances} == {"USD", "BTC", "ETH"}
    async with Exchange(exchange.base_url, Token(joined.token)) as bot:
        assert (await bot.accounts())["BTC"].available == 100
