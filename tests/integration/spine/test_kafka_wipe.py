"""Kafka is killed, and loses everything: what was accepted settles all the same, and nobody helps (I3)."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import anyio
import pytest

from common.topics import topics
from tests.chaos.servers import OwnServer
from tests.integration.spine.own import Own, own_exchange
from tests.integration.spine.spine import BUY, MATCHINGS, ORDER_SERVICE, SELL, Spine, order, spine_of

pytestmark = pytest.mark.anyio

PRICE = 5_000_000
# From the moment at which the server answers again; a few seconds on a machine that is not busy otherwise.
RECOVERED_S = 20.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Own]:
    with own_exchange(tmp_path_factory.mktemp("own")) as own:
        yield own


@pytest.fixture
async def spine(own: Own) -> AsyncIterator[Spine]:
    async with spine_of(own.exchange) as spine:
        yield spine
        await spine.check()
        assert not [name for name, daemon in own.exchange.daemons.items() if daemon.crashed]


async def trade(spine: Spine, buyer: int, seller: int, times: int = 1) -> None:
    for _ in range(times):
        await spine.place(buyer, order(BUY, PRICE, 10), order(BUY, PRICE, 10, symbol="ETH-USD"))
        await spine.place(seller, order(SELL, PRICE, 10), order(SELL, PRICE, 10, symbol="ETH-USD"))


async def traded(spine: Spine, user: int) -> int:
    [(count,)] = await spine.rows("SELECT count(*) FROM trades WHERE taker_user_id = %s", user)
    assert isinstance(count, int)
    return count


async def settled_soon(spine: Spine, what: str) -> None:
    begun_s = anyio.current_time()
    await spine.settled()
    taken_s = anyio.current_time() - begun_s
    print(f"{what}: settled {taken_s:.1f} s after the server answered")
    assert taken_s < RECOVERED_S, spine.exchange.tails()


async def wipe(kafka: OwnServer) -> None:
    await kafka.kill()
    await kafka.wipe()


async def test_kafka_killed_and_started(own: Own, spine: Spine) -> None:
    buyer, seller = await spine.join(), await spine.join()
    await trade(spine, buyer, seller, 3)
    await own.on("kafka", OwnServer.kill)
    await trade(spine, buyer, seller, 3)  # Taken by PostgreSQL alone.
    await own.on("kafka", OwnServer.start)
    await settled_soon(spine, "Kafka killed")
    assert await traded(spine, seller) == 12


@pytest.mark.parametrize("after", [0, 5])
async def test_kafka_wiped(own: Own, spine: Spine, after: int) -> None:
    """With `after` 5 the new topic is about as long as the old one was when all read on."""
    buyer, seller = await spine.join(), await spine.join()
    await trade(spine, buyer, seller, 3)
    await own.on("kafka", wipe)
    await trade(spine, buyer, seller, after)
    await own.on("kafka", OwnServer.start)
    await settled_soon(spine, "Kafka wiped")
    await trade(spine, buyer, seller, 2)
    await settled_soon(spine, "and traded on")
    assert await traded(spine, seller) == 2 * (5 + after)


async def test_kafka_wiped_with_nobody_reading(own: Own, spine: Spine) -> None:
    """Settled positions that lie beyond the new end, and ids of producers that are given out again."""
    buyer, seller = await spine.join(), await spine.join()
    await trade(spine, buyer, seller, 3)
    for name in (ORDER_SERVICE, *MATCHINGS):
        own.exchange.kill(name)
    await own.on("kafka", wipe)
    await own.on("kafka", OwnServer.start)
    own.exchange.start(ORDER_SERVICE, *MATCHINGS)
    await trade(spine, buyer, seller, 2)
    await spine.settled()
    assert await traded(spine, seller) == 10


async def test_daemons_start_without_kafka_and_find_it_later(own: Own, spine: Spine) -> None:
    buyer, seller = await spine.join(), await spine.join()
    for name in (ORDER_SERVICE, *MATCHINGS):
        own.exchange.kill(name)
    await own.on("kafka", OwnServer.kill)
    own.exchange.start(ORDER_SERVICE, *MATCHINGS)
    await trade(spine, buyer, seller)
    await own.on("kafka", OwnServer.start)
    await settled_soon(spine, "Kafka came later")
    assert await traded(spine, seller) == 2


async def test_a_producer_that_kafka_takes_for_another_is_replaced(own: Own, spine: Spine) -> None:
    """Two producers with one id, as a wiped Kafka would give it out."""
    topic = topics(own.exchange.settings).order_updates
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(spine_of(own.exchange))
        await spine.kafka.send(topic, 0, b"first")
        await other.kafka.send(topic, 0, b"second")
        assert spine.kafka._inner is not None
        assert other.kafka._inner is not None
        same = spine.kafka._inner._txn_manager._pid_and_epoch
        other.kafka._inner._txn_manager._pid_and_epoch = same
        other.kafka._inner._txn_manager._sequence_numbers.clear()
        for text in (b"third", b"fourth", b"fifth"):
            await other.kafka.send(topic, 0, text)
        assert await spine.kafka.send(topic, 0, b"sixth") > 0
    values = [record.value for record in await spine.records("order_updates", 0)]
    assert {b"third", b"fourth", b"fifth", b"sixth"} <= set(values)
