"""I8: what is restored from PostgreSQL at any watermark is the engine that made it, byte for byte."""

import random
from dataclasses import replace

import pytest

from common import wire
from common.core import messages as m
from common.core.engine import Engine
from common.kafka import Message
from common.restore import read_watermark, restore
from common.topics import Topics
from daemons.matching.outbound import event_messages
from daemons.order_service.requests import CancelAllOrders, NewOrder, Request
from tests.integration.order_service.desk import Desk, limit

pytestmark = pytest.mark.anyio

TOPICS = Topics("orders", "settlements", "trades", "orderbook", "order_updates")


def _order(draw: random.Random, user: int) -> NewOrder:
    order = limit(
        user,
        draw.choice(list(m.Side)),
        100_000 + draw.randint(-4, 4),
        draw.randint(100, 300),
        symbol=draw.choice(["BTC-USD", "ETH-USD"]),
        stp=draw.choice(list(m.SelfTradePrevention)),
        time_in_force=draw.choice([m.TimeInForce.GTC] * 4 + [m.TimeInForce.IOC, m.TimeInForce.FOK]),
    )
    order.post_only = order.time_in_force is m.TimeInForce.GTC and draw.random() < 0.2
    return order


def _requests(draw: random.Random, users: list[int]) -> list[Request]:
    orders: list[Request] = [_order(draw, draw.choice(users)) for _ in range(draw.randint(1, 20))]
    if draw.random() < 0.1:
        orders.append(CancelAllOrders(draw.choice(users), ""))
    return orders


def _levels(books: list[m.BookUpdate]) -> list[m.BookUpdate]:
    """Without where they stand: at the batch that changed the book last, after a restore at the watermark."""
    return [replace(book, sequence=0, previous=0) for book in books]


def _chained(engine: Engine, batch: m.Batch) -> tuple[list[Message], list[m.BookUpdate]]:
    """What the batch gives: the bytes that money hangs on, and the levels, chained to those before."""
    told = {book.market_id: book.sequence for book in engine.books()}
    applied = engine.apply(batch)
    for update in applied.books:
        assert (update.full, update.previous) == (False, told[update.market_id])
        assert update.sequence == batch.last_sequence
    return event_messages(applied, TOPICS, 5), _levels(applied.books)


async def _restored(desk: Desk, partition: int) -> Engine:
    engine = Engine(partition)
    engine.restore((await restore(desk.connection, partition)).snapshot)
    return engine


async def test_a_restored_engine_goes_on_as_the_one_that_ran(desk: Desk, seed: int) -> None:
    draw = random.Random(seed)
    users = [await desk.user() for _ in range(5)]
    for _ in range(15):
        await desk.submit(*_requests(draw, users))
        for partition in (0, 1):
            await desk.run(partition)
    await desk.submit(*_requests(draw, users))  # Above the watermark: not restored, but applied.
    await desk.submit(*_requests(draw, users))
    for partition in (0, 1):
        ran, restored = desk.engines[partition], await _restored(desk, partition)
        assert restored.snapshot() == ran.snapshot()
        assert _levels(restored.books()) == _levels(ran.books())
        for batch in await desk.batches(partition, ran.sequence):
            assert _chained(restored, batch) == _chained(ran, batch)
        assert restored.snapshot() == ran.snapshot()


async def test_orders_above_the_watermark_are_not_restored(desk: Desk) -> None:
    user = await desk.user()
    await desk.place(limit(user, m.Side.BUY, 100_000, 1_000))
    await desk.run(0)
    await desk.place(limit(user, m.Side.BUY, 100_000, 1_000))
    restored = await restore(desk.connection, 0)
    assert len(restored.snapshot.orders) == 1
    assert (restored.snapshot.sequence, restored.snapshot.chain) == await read_watermark(desk.connection, 0)


async def test_a_replay_from_genesis_gives_the_same_state(desk: Desk, seed: int) -> None:
    """Outbox and archive together hold every command; here nothing has been archived yet."""
    draw = random.Random(seed)
    users = [await desk.user() for _ in range(4)]
    settled: list[bytes] = []
    for _ in range(6):
        await desk.submit(*_requests(draw, users))
        deliveries = await desk.match(0)
        settled += [wire.encode_settlement(delivery.settlement) for delivery in deliveries]
        await desk.settle(0, deliveries)
    replayed = Engine(0)
    made = [replayed.apply(batch).settlement for batch in await desk.batches(0)]
    assert [wire.encode_settlement(one) for one in made][-len(settled) :] == settled
    assert replayed.snapshot() == (await restore(desk.connection, 0)).snapshot
