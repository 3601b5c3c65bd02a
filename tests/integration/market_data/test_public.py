"""Public channels over a real WebSocket, from records on a real Kafka."""

from dataclasses import replace

import anyio
import pytest

from tests.integration.market_data.stand import BTC, ETH, Message, Stand

pytestmark = pytest.mark.anyio


async def test_depth_starts_with_the_book_and_follows_it_without_a_gap(stand: Stand) -> None:
    first = await stand.book(full=True, bids=[(10_000, 5)], asks=[(10_100, 7)])
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        snapshot = await client.next("depth:BTC-USD")
        assert snapshot == {
            "channel": "depth:BTC-USD",
            "type": "snapshot",
            "sequence": first,
            "previous": 0,
            "data": {"bids": [["100.00", "0.00005"]], "asks": [["101.00", "0.00007"]]},
        }
        second = await stand.book(bids=[(10_000, 0), (9_900, 1)])
        update = await client.next("depth:BTC-USD")
        assert (update["type"], update["sequence"], update["previous"]) == ("update", second, first)
        assert update["data"] == {"bids": [["100.00", "0.00000"], ["99.00", "0.00001"]], "asks": []}


async def test_trades_tickers_and_candles_follow_the_trades(stand: Stand) -> None:
    await stand.book(full=True, bids=[(99, 1)])
    old = [stand.next_trade(price=90), stand.next_trade(price=95)]
    await stand.settle(*old)
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("trades:BTC-USD", "ticker:BTC-USD", "klines:BTC-USD:1m")
        tape = await client.next("trades:BTC-USD")
        assert [trade["trade_id"] for trade in tape["data"]] == ["1", "2"]
        assert (tape["type"], tape["sequence"]) == ("snapshot", 2)
        assert (await client.next("ticker:BTC-USD"))["data"]["last"] == "0.95"
        candles = await client.next("klines:BTC-USD:1m")
        assert sum(candle["trades"] for candle in candles["data"]) == 2

        await stand.trades(stand.next_trade(price=120, qty=3))
        update = await client.next("trades:BTC-USD")
        assert (update["sequence"], update["previous"]) == (3, 2)
        assert update["data"][0] | {"time": ""} == {
            "trade_id": "3",
            "symbol": "BTC-USD",
            "price": "1.20",
            "quantity": "0.00003",
            "taker_side": "BUY",
            "time": "",
        }
        ticker = (await client.next("ticker:BTC-USD"))["data"]
        assert (ticker["last"], ticker["open"], ticker["bid"]) == ("1.20", "0.90", "0.99")
        assert ticker["ask"] is None
        candle = (await client.next("klines:BTC-USD:1m"))["data"][-1]
        assert (candle["close"], candle["high"]) == ("1.20", "1.20")


async def test_a_stale_leader_is_not_heard(stand: Stand) -> None:
    await stand.book(full=True, bids=[(100, 1)], token=5)
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")
        last = stand.sequences[BTC.market_id]
        await stand.book(full=True, bids=[(1, 1)], token=4)
        await stand.book(bids=[(2, 2)], token=4, sequence=last + 1, previous=last)
        await stand.book(bids=[(3, 3)], token=5, sequence=last + 1, previous=last)
        update = await client.next("depth:BTC-USD")
        assert update["previous"] == last
        assert update["data"]["bids"] == [["0.03", "0.00003"]]


async def test_the_book_of_a_new_leader_counts_even_when_it_is_older(stand: Stand) -> None:
    await stand.book(full=True, bids=[(100, 1)], token=5)
    await stand.book(bids=[(101, 1)], token=5)
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        assert (await client.next("depth:BTC-USD"))["sequence"] == 2
        await stand.book(full=True, bids=[(100, 1)], token=6, sequence=1)
        again = await client.next("depth:BTC-USD")
        assert (again["type"], again["sequence"]) == ("snapshot", 1)
        await stand.book(bids=[(102, 1)], token=6)
        assert (await client.next("depth:BTC-USD"))["previous"] == 1


async def test_a_gap_hides_the_book_until_it_is_whole_again(stand: Stand) -> None:
    await stand.book(full=True, bids=[(100, 1)])
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")
        await stand.book(bids=[(101, 1)], sequence=10, previous=9)
        await stand.book(bids=[(102, 1)])
        await client.quiet("depth:BTC-USD", 0.3)
        await stand.book(full=True, bids=[(100, 1), (103, 1)])
        whole = await client.next("depth:BTC-USD")
        assert (whole["type"], whole["sequence"]) == ("snapshot", 12)
        assert whole["data"]["bids"] == [["1.03", "0.00001"], ["1.00", "0.00001"]]


async def test_a_full_book_far_back_is_found(stand: Stand) -> None:
    """A quiet market beside a busy one in the same partition."""
    quiet = replace(ETH, partition=BTC.partition)
    stand.orders.markets = [BTC, quiet]
    await stand.book(quiet, full=True, bids=[(7, 7)])
    await stand.book(quiet, bids=[(7, 8)])
    await stand.book(BTC, full=True)
    async with anyio.create_task_group() as group:
        for _ in range(2_200):
            group.start_soon(stand.repeat_book, BTC)
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:ETH-USD")
        assert (await client.next("depth:ETH-USD"))["data"]["bids"] == [["0.07", "0.0008"]]


async def test_missed_trades_come_from_postgresql_in_order(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("trades:BTC-USD")
        assert (await client.next("trades:BTC-USD"))["data"] == []
        lost = [stand.next_trade(), stand.next_trade()]
        seen = stand.next_trade(price=300)
        await stand.trades(seen)
        await client.quiet("trades:BTC-USD", 0.5)
        await stand.settle(*lost)
        got: list[Message] = []
        while len(got) < 3:
            got += (await client.next("trades:BTC-USD"))["data"]
        assert [trade["trade_id"] for trade in got] == ["1", "2", "3"]
        await stand.trades(seen)
        await client.quiet("trades:BTC-USD")


async def test_a_book_tells_of_trades_that_never_came(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("trades:BTC-USD")
        await client.next("trades:BTC-USD")
        lost = stand.next_trade()
        await stand.settle(lost)
        await stand.book(full=True, last_trade_id=1)
        assert (await client.next("trades:BTC-USD"))["data"][0]["trade_id"] == "1"


async def test_a_restart_shows_the_same_market(stand: Stand) -> None:
    await stand.book(full=True, bids=[(100, 1)])
    trades = [stand.next_trade(price=100 + number) for number in range(5)]
    await stand.trades(*trades)
    await stand.settle(*trades)
    seen = []
    for _ in range(2):
        async with stand.daemon(), stand.client() as client:
            await client.subscribe("depth:BTC-USD", "trades:BTC-USD")
            depth, tape = await client.next("depth:BTC-USD"), await client.next("trades:BTC-USD")
            seen.append((depth, [trade["trade_id"] for trade in tape["data"]], tape["sequence"]))
    assert seen[0] == seen[1]
    assert seen[0][1:] == (["1", "2", "3", "4", "5"], 5)


async def test_a_new_market_is_served_without_a_restart(stand: Stand) -> None:
    stand.orders.markets = [BTC]
    async with stand.daemon(), stand.client() as client:
        refused = await client.ask(op="subscribe", channels=["depth:ETH-USD"], id=1)
        assert refused["error"]["code"] == "UNKNOWN_SYMBOL"
        stand.orders.markets = [BTC, ETH]
        await stand.book(ETH, full=True, asks=[(5, 5)])
        with anyio.fail_after(5):
            while (await client.ask(op="subscribe", channels=["depth:ETH-USD"]))["op"] == "error":
                await anyio.sleep(0.05)
        assert (await client.next("depth:ETH-USD"))["data"]["asks"] == [["0.05", "0.0005"]]
