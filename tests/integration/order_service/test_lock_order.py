"""I9 and I1 under load: two TX1 and two TX2 at once on the same users, and nothing ever deadlocks."""

import random
from collections.abc import Sequence

import anyio
import psycopg
import pytest

from common import admin, db
from common.core import messages as m
from daemons.order_service.placement import Placement
from daemons.order_service.requests import Accepted, CancelAllOrders, CancelOrder, Request
from tests.integration.order_service.desk import BTC, UNIT, USD, Desk, limit

pytestmark = pytest.mark.anyio

USERS, ROUNDS, MOST_REQUESTS, NAMES = 10, 40, 30, 60

_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


class Trader:
    """Draws requests: users in any order, names that come again, cancels of what was accepted."""

    def __init__(self, draw: random.Random, users: Sequence[int]) -> None:
        self._draw = draw
        self._users = users
        self._accepted: list[tuple[int, int]] = []

    def requests(self) -> list[Request]:
        return [self._request() for _ in range(self._draw.randint(1, MOST_REQUESTS))]

    def remember(self, requests: Sequence[Request], answers: Sequence[object]) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Accepted):
                self._accepted.append((request.user_id, answer.order_id))

    def _request(self) -> Request:
        draw, user = self._draw, self._draw.choice(self._users)
        kind = draw.random()
        if kind < 0.03:
            return CancelAllOrders(user, draw.choice(["", "BTC-USD", "ETH-USD"]))
        if kind < 0.2 and self._accepted:
            return CancelOrder(*draw.choice(self._accepted))
        return limit(
            user,
            draw.choice(list(m.Side)),
            100_000 + draw.randint(-3, 3),
            draw.randint(100, 300),
            symbol=draw.choice(["BTC-USD", "ETH-USD"]),
            client=draw.choice(["", f"n{draw.randrange(NAMES)}"]),
            stp=draw.choice(list(m.SelfTradePrevention)),
        )


async def _users(desk: Desk) -> list[int]:
    """Half of them own nothing but money and half no money, so that trades open accounts."""
    return [
        await desk.user(usd=1_000_000 * (n % 2), btc=100 * (1 - n % 2), eth=1_000 * (1 - n % 2))
        for n in range(USERS)
    ]


async def _place(desk: Desk, trader: Trader) -> None:
    async with db.connect(desk.url, "order-service tx1") as connection:
        placement = Placement(connection, desk.markets)
        for _ in range(ROUNDS):
            requests, first = trader.requests(), await placement.next_block()
            committed = await placement.commit(requests, range(first, first + len(requests)))
            trader.remember(requests, committed.answers)


async def _settle(desk: Desk, partition: int, placed: anyio.Event) -> None:
    """Match and settle what comes, until everything was placed and nothing is left."""
    async with db.connect(desk.url, f"order-service tx2 {partition}") as connection:
        own = Desk(desk.url, connection, desk.markets, desk.placement, desk.engines)
        while True:
            last_look = placed.is_set()
            await own.run(partition)
            if last_look:
                return


async def _deposit(desk: Desk, draw: random.Random, users: Sequence[int], placed: anyio.Event) -> None:
    async with db.connect(desk.url, "order-service deposits") as connection:
        number = 0
        while not placed.is_set():
            number += 1
            await admin.deposit(
                connection, draw.choice(users), draw.choice([USD, BTC]), UNIT, f"more {number}"
            )


async def test_concurrent_tx1_and_tx2_never_deadlock(desk: Desk, seed: int) -> None:
    users = await _users(desk)
    placed = anyio.Event()
    async with anyio.create_task_group() as settling:
        for partition in (0, 1):
            settling.start_soon(_settle, desk, partition, placed)
        settling.start_soon(_deposit, desk, random.Random(seed), users, placed)
        async with anyio.create_task_group() as placing:
            for number in (1, 2):
                placing.start_soon(_place, desk, Trader(random.Random(seed + number), users))
        placed.set()
    for partition in (0, 1):
        await _check_sequence(desk, partition)
    await desk.check_money()
    [(trades,)] = await desk.rows("SELECT count(*) FROM trades")
    assert trades > 0
    with psycopg.connect(desk.url) as fresh:  # The others have ended, and so reported what they met.
        assert fresh.execute(_DEADLOCKS).fetchone() == (0,)


async def _check_sequence(desk: Desk, partition: int) -> None:
    """Gapless, each batch on the chain of the one before (`decode_batch` checks its own), time growing."""
    sequence, chain, time_us = 0, m.GENESIS_CHAIN, 0
    for batch in await desk.batches(partition):
        assert (batch.first_sequence, batch.previous_chain) == (sequence + 1, chain)
        assert batch.time_us > time_us
        sequence, chain, time_us = batch.last_sequence, batch.chain, batch.time_us
    assert await desk.rows(
        "SELECT last_sequence, last_time_us FROM shards WHERE partition = %s", partition
    ) == [(sequence, time_us)]
    assert await desk.rows("SELECT sequence FROM watermarks WHERE partition = %s", partition) == [(sequence,)]
    orders = await desk.rows(
        "SELECT count(*), count(DISTINCT sequence) FROM orders WHERE partition = %s", partition
    )
    assert orders[0][0] == orders[0][1] > 0


async def test_a_name_given_to_both_at_once_is_placed_once(desk: Desk, seed: int) -> None:
    """The user's lock comes before the look-up, so one of two replicas finds the other's order."""
    users, draw = await _users(desk), random.Random(seed)
    answers: list[Accepted] = []

    async def place(own: random.Random) -> None:
        async with db.connect(desk.url, "order-service tx1") as connection:
            placement = Placement(connection, desk.markets)
            for number in range(20):
                requests = [limit(u, m.Side.BUY, 100_000, 100, client=f"r{number}") for u in users[1::2]]
                own.shuffle(requests)
                first = await placement.next_block()
                committed = await placement.commit(requests, range(first, first + len(requests)))
                answers.extend(one for one in committed.answers if isinstance(one, Accepted))

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(place, random.Random(draw.random()))
    assert len(answers) == 2 * 20 * (USERS // 2)
    assert len([answer for answer in answers if answer.repeated]) == len(answers) // 2
    assert len({answer.order_id for answer in answers}) == len(answers) // 2
    await desk.run(0)
    await desk.check_money()
