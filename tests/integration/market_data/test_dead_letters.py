"""Poison in each of the three topics: it goes to the dead letters, and the streams go on."""

import anyio
import pytest

from common.core.messages import OrderStatus
from common.kafka import Message
from common.kafka_reader import Record, reader
from tests.integration.market_data.stand import BTC, Stand, order_state

pytestmark = pytest.mark.anyio

HUGE_TOKEN = 1 << 50


async def _letters(stand: Stand, count: int) -> list[Record]:
    found: list[Record] = []
    topic = stand.topics.dead_letters
    async with reader(stand.settings, topic, BTC.partition, lambda earliest, _: earliest) as source:
        with anyio.fail_after(20):
            while len(found) < count:
                found += await source.poll()
    return found


async def test_poison_becomes_a_letter_and_the_streams_go_on(stand: Stand) -> None:
    stand.orders.tokens["mine"] = 7
    await stand.book(full=True, bids=[(10_000, 5)])
    poison = [b"\xff\xfegarbage", b""]
    async with stand.daemon(), stand.client() as client:
        await client.ask(op="auth", token="mine")
        await client.subscribe("depth:BTC-USD", "trades:BTC-USD", "orders")
        for channel in ("depth:BTC-USD", "trades:BTC-USD", "orders"):
            await client.next(channel)
        for topic in (stand.topics.orderbook, stand.topics.trades, stand.topics.order_updates):
            await stand.producer.send_many(
                [
                    # A token that would silence the leader, and headers that are no numbers.
                    Message(topic, BTC.partition, value, HUGE_TOKEN, headers=(("offset", b"\xffx"),))
                    for value in poison
                ]
            )
        await stand.book(bids=[(9_900, 1)])
        assert (await client.next("depth:BTC-USD"))["data"]["bids"] == [["99.00", "0.00001"]]
        await stand.trades(stand.next_trade(price=120))
        assert (await client.next("trades:BTC-USD"))["data"][0]["trade_id"] == "1"
        await stand.told(2, [order_state(7, 20, OrderStatus.OPEN)])
        assert (await client.next("orders"))["data"]["order_id"] == "20"
        letters = await _letters(stand, 6)
    assert sorted(letter.value for letter in letters) == sorted(poison * 3)
