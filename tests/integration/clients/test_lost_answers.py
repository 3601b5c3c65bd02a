"""The connection ends after the request was sent: there is one order, and the client knows it."""

import anyio
import pytest

from exchange_client import Exchange, LimitOrder, NoAnswer, Patience, Token
from tests.harness import exchange as harness
from tests.integration.clients.cutting import Cut, cutting

pytestmark = pytest.mark.anyio

QUICK = Patience(deadline_s=20, attempt_s=10, first_pause_s=0.01, longest_pause_s=0.1)
BRIEF = Patience(deadline_s=0.01, attempt_s=0.01, first_pause_s=0.01, longest_pause_s=0.01)


def limit(price: int) -> LimitOrder:
    return LimitOrder(symbol="BTC-USD", side="BUY", price=price, quantity="0.01")


async def all_orders(bot: Exchange) -> list[str]:
    return [order.order_id async for order in bot.orders()]


async def test_a_lost_answer_leaves_one_order(exchange: harness.Exchange) -> None:
    user = Token(exchange.join().token)
    async with (
        cutting(exchange.ports.gateway) as proxy,
        Exchange(proxy.url, user, patience=QUICK) as bot,
    ):
        proxy.cuts.extend([Cut.AFTER, Cut.BEFORE, Cut.AFTER])
        accepted = await bot.place(limit(10_000))
        assert (accepted.repeated, proxy.seen) == (True, 4)
        assert await all_orders(bot) == [accepted.order_id]
        proxy.cuts.append(Cut.BEFORE)
        second = await bot.place(limit(10_001))
        assert not second.repeated
        assert await all_orders(bot) == [second.order_id, accepted.order_id]


async def test_a_lost_answer_leaves_one_batch(exchange: harness.Exchange) -> None:
    user = Token(exchange.join().token)
    async with (
        cutting(exchange.ports.gateway) as proxy,
        Exchange(proxy.url, user, patience=QUICK) as bot,
    ):
        proxy.cuts.extend([Cut.AFTER, Cut.AFTER])
        results = await bot.place_batch([limit(10_000 + n) for n in range(20)])
        placed = [result.order_id for result in results if not isinstance(result, Exception)]
        assert len(placed) == 20
        assert sorted(await all_orders(bot)) == sorted(placed)


async def test_after_no_answer_the_same_object_tells_the_truth(exchange: harness.Exchange) -> None:
    user = Token(exchange.join().token)
    order = limit(10_000)
    async with cutting(exchange.ports.gateway) as proxy:
        proxy.cuts.append(Cut.AFTER)
        async with Exchange(proxy.url, user, patience=BRIEF) as hasty:
            with pytest.raises(NoAnswer):
                await hasty.place(order)
    async with Exchange(exchange.base_url, user) as bot:
        accepted = await bot.place(order)
        assert await all_orders(bot) == [accepted.order_id]


async def test_a_cancel_whose_answer_is_lost_gets_it_again(exchange: harness.Exchange) -> None:
    user = Token(exchange.join().token)
    async with (
        cutting(exchange.ports.gateway, b"DELETE /api/v1/orders") as proxy,
        Exchange(proxy.url, user, patience=QUICK) as bot,
    ):
        one, *others = [(await bot.place(limit(10_000 + n))).order_id for n in range(3)]
        proxy.cuts.extend([Cut.AFTER, Cut.BEFORE])
        # Not OrderNotLive, which is true by now because of the first request.
        assert (await bot.cancel(one)).order_id == one
        await until_canceled(bot, one)
        proxy.cuts.append(Cut.AFTER)
        assert await bot.cancel_all() == len(others)
        for order_id in others:
            await until_canceled(bot, order_id)


async def until_canceled(bot: Exchange, order_id: str) -> None:
    with anyio.fail_after(20):
        while (await bot.order(order_id)).status.live:
            await anyio.sleep(0.01)


async def test_a_join_whose_answer_is_lost_is_not_repeated(exchange: harness.Exchange) -> None:
    async with (
        cutting(exchange.ports.gateway, b"POST /api/v1/test/join") as proxy,
        Exchange(proxy.url, patience=QUICK) as anybody,
    ):
        proxy.cuts.append(Cut.AFTER)
        with pytest.raises(NoAnswer):
            await anybody.join()
        assert proxy.seen == 1
