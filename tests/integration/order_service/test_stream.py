"""SubmitStream over a real gRPC connection to real transactions: order, drain, and what is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import grpc.aio
import pytest
from anyio.abc import TaskStatus

from common import db
from common.core import messages as m
from common.rpc import grpc_channel, serve_grpc
from daemons.order_service.committer import Committer
from daemons.order_service.identity import by_daemon
from daemons.order_service.queries import Queries
from daemons.order_service.service import OrdersService, register
from daemons.order_service.settled import SettledOrders, Watermarks
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.integration.order_service.committing import WITHIN_S, committing, locked, until, until_blocked
from tests.integration.order_service.desk import Desk

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
MESSAGES = 20


def message(*lots: int) -> pb.SubmitStreamRequest:
    return pb.SubmitStreamRequest(
        orders=[
            pb.NewOrder(
                symbol="BTC-USD",
                side=ty.SIDE_BUY,
                type=ty.ORDER_TYPE_LIMIT,
                price_ticks=PRICE,
                qty_lots=each,
            )
            for each in lots
        ]
    )


@asynccontextmanager
async def serving(desk: Desk) -> AsyncIterator[tuple[str, Committer]]:
    """The address of a server that drains when the body ends, and its committer."""
    async with committing(desk) as committer, db.pool(desk.url, name="order-service test") as pool:
        queries = Queries(pool, desk.markets)
        settled = SettledOrders(Watermarks(), desk.markets, queries, most=1)
        orders = OrdersService(by_daemon, committer, queries, desk.markets, settled)
        async with serve_grpc(
            partial(register, orders=orders), "127.0.0.1:0", service_names=[], drain_s=WITHIN_S
        ) as port:
            yield f"127.0.0.1:{port}", committer


Call = grpc.aio.StreamStreamCall[pb.SubmitStreamRequest, pb.SubmitStreamResponse]


@asynccontextmanager
async def stream(address: str, user_id: int) -> AsyncIterator[Call]:
    async with grpc_channel(address) as channel:
        stub = orders_pb2_grpc.OrdersStub(channel)
        yield stub.SubmitStream(metadata=(("x-user-id", str(user_id)),))


async def test_messages_on_their_way_share_a_transaction_and_keep_their_order(desk: Desk) -> None:
    user = await desk.user()
    before = len(await desk.batches(0))
    async with serving(desk) as (address, committer), stream(address, user) as call:
        async with locked(desk.url, user):
            await call.write(message(LOTS))
            await until_blocked(desk)
            for n in range(1, MESSAGES):
                await call.write(message(LOTS + n, LOTS + n))

            async def all_queued() -> bool:
                return committer._queued == 2 * (MESSAGES - 1)

            await until(all_queued)
        await call.done_writing()
        answers = [response.results async for response in call]
    assert [len(results) for results in answers] == [1] + [2] * (MESSAGES - 1)
    batches = (await desk.batches(0))[before:]
    assert [len(batch.commands) for batch in batches] == [1, 2 * (MESSAGES - 1)]
    placed = [command for batch in batches for command in batch.commands if isinstance(command, m.Place)]
    assert [place.order_id for place in placed] == [
        one.accepted.order_id for results in answers for one in results
    ]
    assert [place.qty_lots for place in placed] == sorted(place.qty_lots for place in placed)
    await desk.run(0)
    await desk.check_money()


async def test_a_refused_order_in_the_middle_is_refused_alone(desk: Desk) -> None:
    user = await desk.user(usd=1_000)
    async with serving(desk) as (address, _), stream(address, user) as call:
        for lots in (LOTS, 100 * LOTS, 0, LOTS):
            await call.write(message(lots))
        await call.done_writing()
        answers = [response.results[0] async for response in call]
    assert [one.error.code for one in answers] == ["", "INSUFFICIENT_FUNDS", "INVALID_QUANTITY", ""]
    await desk.run(0)
    await desk.check_money()


async def test_a_drain_answers_every_message_that_was_read(desk: Desk) -> None:
    user = await desk.user()
    answers: list[int] = []

    async def client(address: str) -> None:
        async with stream(address, user) as call:
            for _ in range(MESSAGES):
                await call.write(message(LOTS))
            async for response in call:  # It does not end the stream: the server does.
                answers.append(response.results[0].accepted.sequence)

    async def lock_until_it_drains(address: str, *, task_status: TaskStatus[None]) -> None:
        async with locked(desk.url, user):
            task_status.started()
            await until(partial(_refuses, address))

    async with anyio.create_task_group() as group, serving(desk) as (address, committer):
        await group.start(lock_until_it_drains, address)
        group.start_soon(client, address)
        await until_blocked(desk)

        async def all_queued() -> bool:
            return committer._queued == MESSAGES - 1

        await until(all_queued)
    assert len(answers) == MESSAGES
    assert answers == list(range(answers[0], answers[0] + MESSAGES))


async def _refuses(address: str) -> bool:
    async with grpc_channel(address) as channel:
        try:
            await orders_pb2_grpc.OrdersStub(channel).ListMarkets(pb.ListMarketsRequest(), timeout=5.0)
        except grpc.aio.AioRpcError:
            return True
    return False
