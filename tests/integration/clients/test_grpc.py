"""Orders over gRPC, with messages that the server describes; asyncio alone."""

from collections.abc import AsyncIterator, Sequence

import pytest

from exchange_client import (
    Exchange,
    InsufficientFunds,
    InvalidPrice,
    LimitOrder,
    MarketOrder,
    NewOrder,
    NoAnswer,
    Patience,
    Token,
    Unauthenticated,
    UnknownSymbol,
)
from exchange_client.grpc_orders import GrpcOrders
from tests.harness import exchange as harness

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def limit(price: object, quantity: object = "0.1", symbol: str = "ETH-USD") -> LimitOrder:
    fields = {"symbol": symbol, "side": "BUY", "price": price, "quantity": quantity}
    return LimitOrder(**fields)  # type: ignore[arg-type]


async def test_orders_go_the_short_way_and_are_the_same_orders(exchange: harness.Exchange) -> None:
    token = Token(exchange.join().token)
    async with (
        GrpcOrders(exchange.orders_address, token) as orders,
        Exchange(exchange.base_url, token) as bot,
    ):
        order = limit("1234.56", "0.5")
        accepted = await orders.place(order)
        assert not accepted.repeated
        assert (await orders.place(order)).repeated
        seen = await bot.order(accepted.order_id)
        assert seen.created_at == accepted.created_at
        assert (str(seen.price), str(seen.quantity)) == ("1234.56", "0.5000")
        good, dear = await orders.place_batch([limit(1000), limit(1000, 10_000)])
        assert isinstance(dear, InsufficientFunds)
        assert not isinstance(good, Exception)
        assert (await orders.cancel(good.order_id)).order_id == good.order_id
        with pytest.raises(InsufficientFunds):
            await orders.place(MarketOrder(symbol="BTC-USD", side="BUY", quote_quantity=10_000_000))
        assert await orders.cancel_all("ETH-USD") in (1, 2)  # The canceled one may not have ended yet.


async def test_a_stream_answers_each_batch_in_its_turn(exchange: harness.Exchange) -> None:
    async def batches() -> AsyncIterator[Sequence[NewOrder]]:
        for size in (1, 5, 2):
            yield [limit(1000 + size) for _ in range(size)]

    async with GrpcOrders(exchange.orders_address, Token(exchange.join().token)) as orders:
        assert [len(results) async for results in orders.place_stream(batches())] == [1, 5, 2]
        assert await orders.cancel_all() == 8


async def test_what_is_wrong_is_said_in_the_same_words(exchange: harness.Exchange) -> None:
    async with GrpcOrders(exchange.orders_address, Token("nobody")) as orders:
        for order, error in ((limit(1, symbol="X"), UnknownSymbol), (limit("0.001"), InvalidPrice)):
            with pytest.raises(error):
                await orders.place(order)
        with pytest.raises(Unauthenticated):
            await orders.place(limit(1000))
    nobody = Patience(deadline_s=0.5, attempt_s=0.5, first_pause_s=1, longest_pause_s=1)
    with pytest.raises(NoAnswer):
        async with GrpcOrders("127.0.0.1:1", Token("t"), patience=nobody):
            pass
