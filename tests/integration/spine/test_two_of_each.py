"""Two order-services and two matchings at once, with several users who trade through both."""

import random
from pathlib import Path

import anyio
import pytest

from exchange.v1 import internal_pb2
from tests.harness.exchange import Exchange
from tests.integration.spine.spine import (
    BUY,
    ORDER_SERVICE,
    SECOND,
    SELL,
    Service,
    Spine,
    order,
    retried,
    second_order_service,
    service_at,
)

pytestmark = pytest.mark.anyio

PRICE, ROUNDS, USERS = 1_000_000, 25, 6


async def _trade(spine: Spine, user: int, services: list[Service], draw: random.Random) -> None:
    for number in range(ROUNDS):
        orders = [
            order(
                draw.choice([BUY, SELL]),
                PRICE + draw.randint(-3, 3),
                draw.randint(100, 300),
                client=f"{number}-{one}",
                symbol=draw.choice(["BTC-USD", "ETH-USD"]),
            )
            for one in range(draw.randint(1, 5))
        ]
        await spine.place(user, *orders, service=draw.choice(services))


async def test_users_trade_through_both(spine: Spine, half_exchange: Exchange, logs: Path, seed: int) -> None:
    users = [await spine.join() for _ in range(USERS)]
    with second_order_service(half_exchange, logs) as address:
        async with service_at(address) as second, anyio.create_task_group() as group:
            await retried(lambda: second.internal.Rewind(internal_pb2.RewindRequest(partition=3)))
            for number, user in enumerate(users):
                group.start_soon(_trade, spine, user, [spine.service, second], random.Random(seed + number))
        await spine.check()
        [(trades,)] = await spine.rows("SELECT count(*) FROM trades WHERE taker_user_id = ANY(%s)", users)
        assert isinstance(trades, int)
        assert trades > 0
        await spine.cancel_all(*users)


async def test_the_same_name_at_both_is_one_order(spine: Spine, half_exchange: Exchange, logs: Path) -> None:
    user = await spine.join()
    ids: list[set[int]] = [set() for _ in range(20)]

    async def place(service: Service) -> None:
        for number, own in enumerate(ids):
            [accepted] = await spine.place(
                user, order(BUY, PRICE - 1_000, 100, client=f"n{number}"), service=service
            )
            own.add(accepted.order_id)

    with second_order_service(half_exchange, logs) as address:
        async with service_at(address) as second, anyio.create_task_group() as group:
            await retried(lambda: second.internal.Rewind(internal_pb2.RewindRequest(partition=3)))
            for service in (spine.service, second):
                group.start_soon(place, service)
    assert [len(own) for own in ids] == [1] * len(ids)
    assert await spine.rows("SELECT count(*) FROM orders WHERE user_id = %s", user) == [(len(ids),)]
    await spine.cancel_all(user)


async def test_the_other_one_settles_and_relays_when_one_is_killed(
    spine: Spine, half_exchange: Exchange, logs: Path
) -> None:
    user = await spine.join()
    with second_order_service(half_exchange, logs) as address:
        async with service_at(address) as second:
            await retried(lambda: second.internal.Rewind(internal_pb2.RewindRequest(partition=3)))
            await spine.place(user, order(BUY, PRICE - 1_000, 100))
            _, token = await spine.leader("settlement", 0)
            spine.exchange.kill(ORDER_SERVICE)
            await spine.place(user, order(BUY, PRICE - 1_000, 100), service=second)
            await spine.settled()
            holder, higher = await spine.leader("settlement", 0)
            assert holder == SECOND
            assert higher > token
            spine.exchange.start(ORDER_SERVICE)
    await spine.cancel_all(user)  # By the first again: the second has drained.
