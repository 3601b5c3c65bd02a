"""What market-data writes: candles and Redis, each behind its fence. Then gRPC, and the drain."""

from typing import Any

import anyio
import grpc
import pytest
from redis.asyncio import Redis
from websockets.exceptions import ConnectionClosed

from common.db import connect
from common.health import Health
from common.lease import Lease, LeaseLost
from common.rpc import from_rpc_error, grpc_channel
from daemons.market_data.candles import SERVICE, write_batch
from daemons.market_data.redis_sink import SCRIPT, RedisSink
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import market_data_pb2_grpc
from tests.integration.market_data.stand import BTC, Stand

pytestmark = pytest.mark.anyio

MINUTE_US = 60_000_000
DAY_US = 1_440 * MINUTE_US
NOON_US = 20_000 * DAY_US + DAY_US // 2


async def rows(stand: Stand, query: str) -> list[tuple[Any, ...]]:
    async with connect(stand.settings.postgres_url, "test") as connection:
        return await (await connection.execute(query)).fetchall()


async def test_settled_trades_become_candles_once(stand: Stand) -> None:
    prices = [100, 130, 90, 110]
    for minute, price in enumerate(prices):
        await stand.settle(stand.next_trade(price=price, qty=2), time_us=NOON_US + minute * MINUTE_US)
    async with stand.daemon():
        await _until(stand, "SELECT last_trade_id FROM candle_cursors", [(4,)])
    await stand.settle(stand.next_trade(price=500, qty=1), time_us=NOON_US + 4 * MINUTE_US)
    async with stand.daemon():  # A restart counts nothing twice.
        await _until(stand, "SELECT last_trade_id FROM candle_cursors", [(5,)])
    columns = "open_time_us, open_ticks, high_ticks, low_ticks, close_ticks, volume_lots, trades"
    minutes = await rows(stand, f"SELECT {columns} FROM candles WHERE interval_s = 60 ORDER BY 1")
    assert minutes == [
        (NOON_US + n * MINUTE_US, price, price, price, price, 1 if n == 4 else 2, 1)
        for n, price in enumerate([*prices, 500])
    ]
    for interval_s in (300, 900, 3_600, 86_400):
        found = await rows(stand, f"SELECT {columns} FROM candles WHERE interval_s = {interval_s}")
        assert [row[1:] for row in found] == [(100, 500, 90, 500, 9, 5)]
    quote = await rows(stand, "SELECT quote_volume_atoms FROM candles WHERE interval_s = 86400")
    assert quote == [((sum(prices) * 2 + 500) * BTC.atoms_per_tick_lot,)]


async def _until(stand: Stand, query: str, expected: list[tuple[Any, ...]]) -> None:
    with anyio.fail_after(10):
        while await rows(stand, query) != expected:
            await anyio.sleep(0.05)


async def test_a_candle_writer_with_an_old_token_is_refused(stand: Stand) -> None:
    await stand.settle(stand.next_trade())
    async with connect(stand.settings.postgres_url, "test") as connection:
        await connection.execute(
            "INSERT INTO partition_leader_locks VALUES (%s, 0, 'x', 7, now() + interval '1 hour')", (SERVICE,)
        )
        with pytest.raises(LeaseLost):
            await write_batch(connection, Lease(SERVICE, 0, 6, "old"), BTC)
        assert await rows(stand, "SELECT count(*) FROM candles") == [(0,)]
        assert await write_batch(connection, Lease(SERVICE, 0, 7, "new"), BTC) == 1
        assert await write_batch(connection, Lease(SERVICE, 0, 7, "new"), BTC) == 0
    assert await rows(stand, "SELECT count(*) FROM candles") == [(5,)]


async def test_a_volume_past_64_bits_stays_there(stand: Stand) -> None:
    """Else the writer would fail at the same trade for ever."""
    async with connect(stand.settings.postgres_url, "test") as connection:
        await connection.execute(
            "INSERT INTO partition_leader_locks VALUES (%s, 0, 'x', 7, now() + interval '1 hour')", (SERVICE,)
        )
        price = (2**63 - 1) // (10**6 * BTC.atoms_per_tick_lot)
        for count in (1, 2):  # The second batch alone passes the bound, and both sums do.
            for _ in range(count):
                await stand.settle(stand.next_trade(price=price, qty=10**6))
            assert await write_batch(connection, Lease(SERVICE, 0, 7, "new"), BTC) == count
    days = await rows(stand, "SELECT quote_volume_atoms, trades FROM candles WHERE interval_s = 86400")
    assert days == [(2**63 - 1, 3)]


async def test_a_takeover_waits_for_the_candles_under_way(stand: Stand) -> None:
    await stand.settle(stand.next_trade())
    async with (
        connect(stand.settings.postgres_url, "writer") as writer,
        connect(stand.settings.postgres_url, "rival") as rival,
    ):
        await rival.execute(
            "INSERT INTO partition_leader_locks VALUES (%s, 0, 'x', 7, now() + interval '1 hour')", (SERVICE,)
        )
        taken = anyio.Event()

        async def take_over() -> None:
            await rival.execute("UPDATE partition_leader_locks SET fencing_token = 8")
            taken.set()

        async with anyio.create_task_group() as group, writer.transaction():
            assert await write_batch(writer, Lease(SERVICE, 0, 7, "old"), BTC) == 1
            group.start_soon(take_over)
            await anyio.sleep(0.1)
            assert not taken.is_set()
        await taken.wait()
        with pytest.raises(LeaseLost):
            await write_batch(writer, Lease(SERVICE, 0, 7, "old"), BTC)


async def test_redis_shows_the_book_and_the_ticker(stand: Stand) -> None:
    trade = stand.next_trade(price=101)
    await stand.settle(trade)
    sequence = await stand.book(full=True, bids=[(100, 5), (99, 6)], asks=[(102, 7)], token=3)
    key = f"{stand.settings.topic_prefix}:book:BTC-USD"
    async with stand.daemon(), Redis.from_url(stand.settings.redis_url, decode_responses=True) as redis:
        book = await _hash(redis, key, sequence)
        assert (book["token"], book["bid"], book["ask"]) == ("3", "1.00", "1.02")
        assert book["bids"] == '[["1.00","0.00005"],["0.99","0.00006"]]'
        ticker = await _hash(redis, f"{stand.settings.topic_prefix}:ticker:BTC-USD", sequence)
        assert (ticker["last"], ticker["bid"], ticker["trades"]) == ("1.01", "1.00", "1")
        newer = await stand.book(bids=[(100, 0)], token=3)
        assert (await _hash(redis, key, newer))["bid"] == "0.99"
        for token, before in ((2, newer + 1), (3, newer - 1)):
            assert await redis.eval(SCRIPT, 1, key, token, before, 60, "bid", "stale") == 0
        assert (await redis.hget(key, "bid")) == "0.99"
        assert await redis.eval(SCRIPT, 1, key, 4, 0, 60, "bid", "newer") == 1


async def _hash(redis: Redis, key: str, sequence: int) -> dict[str, str]:
    with anyio.fail_after(5):
        while (found := await redis.hgetall(key)).get("sequence") != str(sequence):
            await anyio.sleep(0.02)
    return {str(name): str(value) for name, value in found.items()}


async def test_redis_away_harms_nobody(stand: Stand) -> None:
    stand.settings = stand.settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")
        await stand.book(bids=[(1, 2)])
        await client.next("depth:BTC-USD")
        assert await stand.ready()


async def test_redis_that_is_not_configured_is_left_alone() -> None:
    health = Health()
    await RedisSink("", "x", health).run([])
    assert health.ready


async def test_grpc_answers_and_streams(stand: Stand) -> None:
    await stand.book(full=True, bids=[(100, 5), (99, 6)], asks=[(102, 7)])
    await stand.settle(stand.next_trade(price=101))
    async with (
        stand.daemon(),
        grpc_channel(f"127.0.0.1:{stand.settings.market_data_port}") as channel,
    ):
        stub: market_data_pb2_grpc.MarketDataAsyncStub = market_data_pb2_grpc.MarketDataStub(channel)
        book = await stub.GetBook(md.GetBookRequest(symbol="BTC-USD", depth=1))
        assert [(level.price_ticks, level.qty_lots) for level in book.bids] == [(100, 5)]
        assert (await stub.GetTicker(md.GetTickerRequest(symbol="BTC-USD"))).last_ticks == 101
        candles = (await stub.ListCandles(md.ListCandlesRequest(symbol="BTC-USD", interval_s=60))).candles
        assert [candle.trades for candle in candles] == [1]
        trades = (await stub.ListTrades(md.ListTradesRequest(symbol="BTC-USD"))).trades
        assert [trade.trade_id for trade in trades] == [1]
        for call, code in (
            (stub.GetBook(md.GetBookRequest(symbol="NO-NO")), "UNKNOWN_SYMBOL"),
            (stub.GetBook(md.GetBookRequest(symbol="BTC-USD", depth=1_001)), "MALFORMED"),
            (stub.ListCandles(md.ListCandlesRequest(symbol="BTC-USD", interval_s=7)), "MALFORMED"),
            (stub.GetBook(md.GetBookRequest(symbol="ETH-USD")), "UNAVAILABLE"),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                await call
            assert from_rpc_error(refused.value).code == code
        books = aiter(stub.StreamBook(md.StreamBookRequest(symbol="BTC-USD")))
        tape = aiter(stub.StreamTrades(md.StreamTradesRequest(symbol="BTC-USD")))
        first = await anext(books)
        assert (first.snapshot, len(first.bids)) == (True, 2)
        assert len((await anext(tape)).trades) == 1
        sequence = await stand.book(bids=[(100, 0)])
        second = await anext(books)
        assert (second.snapshot, second.previous, second.sequence) == (False, first.sequence, sequence)
        await stand.trades(stand.next_trade())
        assert [trade.trade_id for trade in (await anext(tape)).trades] == [2]


async def test_a_drain_tells_the_clients_to_go(stand: Stand) -> None:
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")
        assert stand.life is not None
        stand.life.stop("the test says so")
        with anyio.fail_after(3), pytest.raises(ConnectionClosed):
            await client.next("depth:BTC-USD")
        assert client.socket.close_code == 1001
