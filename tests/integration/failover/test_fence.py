"""A leader that hangs is replaced while its lease runs out; what it still says when it wakes changes nothing.

Each test freezes a leader under load, sees another take over, wakes the first, and then writes in the old
leader's name at every place that a token guards. A process that wakes mostly sees that its lease is gone
before it writes; what is written for it here is what one that did not see it would write.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from common import wire
from common.admin import list_markets
from common.core.engine import Engine
from common.core.messages import BookUpdate, Market
from common.health import Health
from common.kafka_reader import Record
from common.lease import Lease, LeaseLost
from common.restore import restore
from common.trip import Trips
from daemons.local.servers import Servers
from daemons.market_data.candles import write_batch
from daemons.market_data.channels import MarketChannels
from daemons.market_data.feed import MarketFeed
from daemons.market_data.redis_sink import RedisSink
from daemons.order_service.settlement import Delivery, settle
from tests.harness.exchange import Exchange, running_exchange
from tests.integration.failover.takeover import MATCHING, SETTLEMENT, WITHIN_S, WRITING
from tests.integration.failover.traders import Told, trading
from tests.integration.failover.verdict import check
from tests.integration.spine.spine import BUY, MATCHINGS, Spine, order, spine_of

pytestmark = pytest.mark.anyio

SYMBOL = "BTC-USD"
MARGIN_S = 1.5  # Beyond the time to live, on a machine that hardly gets round to anything.
LOAD_S = 0.5
PRICE_TICKS, LOTS = 4_000_000, 1_000  # Far below what the traders pay.
ORDER_SERVICES, MARKET_DATAS = ("order-service", "order-service-2"), ("market-data", "market-data-2")

_BATCH = """
SELECT partition, first_sequence, time_us, previous_chain, chain, commands FROM outbox
WHERE partition = %s AND first_sequence > %s ORDER BY first_sequence LIMIT 1
"""
_BATCH_COLUMNS = ("partition", "first_sequence", "time_us", "previous_chain", "chain", "commands")
_LAST_TRADE = "SELECT coalesce(max(trade_id), 0) FROM trades WHERE market_id = %s"
_WATERMARK = "SELECT sequence, chain FROM watermarks WHERE partition = %s"


@pytest.fixture(scope="module")
def pair(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    """An exchange with two of each daemon that leads."""
    logs = tmp_path_factory.mktemp("fence")
    with running_exchange(servers, logs, order_services=2, market_datas=2) as running:
        yield running


@pytest.fixture
async def spine(pair: Exchange, seed: int) -> AsyncIterator[Spine]:
    async with spine_of(pair) as spine:
        yield spine
        await check(spine.connection, seed)


@pytest.fixture
async def market(spine: Spine) -> Market:
    [found] = [market for market, _ in await list_markets(spine.connection) if market.symbol == SYMBOL]
    return found


@asynccontextmanager
async def hung(spine: Spine, service: str, partition: int, told: Told) -> AsyncIterator[Lease]:
    """The leader hangs, and another leads while the body runs; then it wakes. Gives its old lease."""
    exchange = spine.exchange
    holder, token = await spine.leader(service, partition)
    told.what = f"{holder} hangs"
    begun_s = anyio.current_time()
    exchange.freeze(holder)
    try:

        async def replaced() -> bool:
            return (await spine.leader(service, partition))[1] > token

        await spine.until(replaced)
        replaced_s = anyio.current_time() - begun_s
        print(f"{holder} is frozen; {service}/{partition} led again after {replaced_s:.2f} s")
        assert replaced_s <= exchange.settings.lease_s + MARGIN_S
        yield Lease(service, partition, token, holder)
    finally:
        exchange.thaw(holder)
    await anyio.to_thread.run_sync(exchange.wait_ready)
    assert (await spine.leader(service, partition))[0] != holder


async def trades_on(spine: Spine, market: Market) -> None:
    """Until another trade of this market is settled."""
    before = await spine.rows(_LAST_TRADE, market.market_id)

    async def more() -> bool:
        return await spine.rows(_LAST_TRADE, market.market_id) != before

    await spine.until(more)


async def counted(spine: Spine, names: tuple[str, ...], sample: str) -> float:
    """The sum over these daemons."""
    samples = [await anyio.to_thread.run_sync(spine.exchange.metrics, name) for name in names]
    return sum(each.get(sample, 0.0) for each in samples)


def refused_here(sample: str, labels: dict[str, str] | None = None) -> float:
    """What the writing code of a daemon counts when it runs in this process."""
    return REGISTRY.get_sample_value(sample, labels or {}) or 0.0


async def grows(spine: Spine, names: tuple[str, ...], sample: str, before: float, by: int) -> None:
    async def grown() -> bool:
        return await counted(spine, names, sample) >= before + by

    await spine.until(grown)


async def test_a_matching_that_hangs(spine: Spine, market: Market, seed: int) -> None:
    refused = f'exchange_settlement_refusals_total{{cause="token",partition="{market.partition}"}}'
    async with trading(spine.exchange, seed) as (told, _):
        await anyio.sleep(LOAD_S)
        async with hung(spine, MATCHING, market.partition, told) as old:
            await trades_on(spine, market)
        await trades_on(spine, market)
        # Market-data has heard of the new leader.
        for topic in ("trades", "orderbook"):
            stale = f'exchange_market_data_stale_token_total{{topic="{topic}"}}'
            before = await counted(spine, MARKET_DATAS, stale)
            last = (await spine.records(topic, market.partition))[-1]
            await spine.inject(topic, market.partition, [replace(last, token=old.token)] * 3)
            await grows(spine, MARKET_DATAS, stale, before, 3 * len(MARKET_DATAS))
    assert told.wrong == []
    await spine.settled()
    before = await counted(spine, ORDER_SERVICES, refused)
    await _settles_nothing(spine, market, old)
    await grows(spine, ORDER_SERVICES, refused, before, 1)
    spine.exchange.start(*MATCHINGS)
    await anyio.to_thread.run_sync(spine.exchange.wait_ready)
    await spine.settled()


async def _settles_nothing(spine: Spine, market: Market, old: Lease) -> None:
    """What the old leader would make of a batch that nobody has settled yet; no matching runs afterwards."""
    user = await spine.join()
    for name in MATCHINGS:
        spine.exchange.kill(name)
    await spine.place(user, order(BUY, PRICE_TICKS, LOTS, symbol=market.symbol))
    restored = await restore(spine.connection, market.partition)
    engine = Engine(market.partition)
    engine.restore(restored.snapshot)
    [row] = await spine.rows(_BATCH, market.partition, engine.sequence)
    record = wire.encode_batch(**dict(zip(_BATCH_COLUMNS, row, strict=True)))  # type: ignore[arg-type]  # columns of mixed types
    [part] = wire.settlement_parts(engine.apply(wire.decode_batch(record)).settlement)
    before = await spine.rows(_WATERMARK, market.partition)
    await spine.inject("settlements", market.partition, [Record(0, part, old.token, -1)])
    assert await spine.rows(_WATERMARK, market.partition) == before


async def test_a_settler_that_hangs(spine: Spine, market: Market, seed: int) -> None:
    async with trading(spine.exchange, seed) as (told, _):
        await anyio.sleep(LOAD_S)
        async with hung(spine, SETTLEMENT, market.partition, told) as old:
            await trades_on(spine, market)
        await trades_on(spine, market)
        labels = {"partition": str(market.partition), "cause": "settler"}
        before = refused_here("exchange_settlement_refusals_total", labels)
        last = (await spine.records("settlements", market.partition))[-1]
        settlement = wire.SettlementJoiner().add(last.value, last.token)
        assert settlement is not None
        markets = {one.market_id: one for one, _ in await list_markets(spine.connection)}
        outcome = await settle(
            Trips(spine.connection),
            [Delivery(settlement, last.token, last.offset, last.source_offset)],
            partition=market.partition,
            settlement_token=old.token,
            told_offset=last.offset,
            markets=markets,
        )
        assert outcome.lease_lost
        assert not outcome.told
        assert refused_here("exchange_settlement_refusals_total", labels) == before + 1
    assert told.wrong == []


async def test_a_market_data_that_hangs(spine: Spine, market: Market, seed: int) -> None:
    """The candle writer, and what market-data shows in Redis."""
    async with trading(spine.exchange, seed) as (told, _):
        await anyio.sleep(LOAD_S)
        async with hung(spine, WRITING, market.partition, told) as old:
            await trades_on(spine, market)
        before = refused_here("exchange_market_data_candle_refused_total")
        with pytest.raises(LeaseLost):
            await write_batch(spine.connection, old, market)
        assert refused_here("exchange_market_data_candle_refused_total") == before + 1
        await _shows_nothing(spine, market)
    refused = 'exchange_market_data_redis_writes_total{result="refused"}'
    print(f"{old.holder} woke; refused in Redis since: {await counted(spine, (old.holder,), refused):.0f}")
    assert told.wrong == []


async def _shows_nothing(spine: Spine, market: Market) -> None:
    """What a market-data that has heard of nobody but an old matching writes to Redis."""
    settings = spine.exchange.settings
    _, token = await spine.leader(MATCHING, market.partition)
    key = f"{settings.topic_prefix}:book:{market.symbol}"
    channels = MarketChannels(MarketFeed(market))
    book = BookUpdate(market.market_id, True, 1 << 50, 0, 0, [(PRICE_TICKS, LOTS)], [], 0)
    channels.feed.apply_book(book, token - 1, 0.0)
    labels = {"result": "refused"}
    before = refused_here("exchange_market_data_redis_writes_total", labels)
    sink = RedisSink(settings.redis_url, settings.topic_prefix, Health())
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        with anyio.fail_after(WITHIN_S):
            while (await redis.hget(key, "token")) != str(token):
                await anyio.sleep(0.05)
        async with anyio.create_task_group() as group:
            group.start_soon(sink.run, [])
            sink.touch(channels)
            with anyio.fail_after(WITHIN_S):
                while refused_here("exchange_market_data_redis_writes_total", labels) == before:
                    await anyio.sleep(0.02)
            group.cancel_scope.cancel()
        assert (await redis.hget(key, "token")) == str(token)
