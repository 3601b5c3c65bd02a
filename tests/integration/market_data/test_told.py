"""The settler tells market-data directly: sooner than Kafka, once, in order, on the internal port alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import grpc
import grpc.aio
import pytest

from common.core.messages import OrderState, OrderStatus
from common.rpc import grpc_channel
from daemons.order_service.teller import Teller, teller
from exchange.v1 import internal_pb2, internal_pb2_grpc
from tests.integration.market_data.stand import BTC, Client, Stand, order_state, updates_of

pytestmark = pytest.mark.anyio

ALICE = 1001


def state(sequence: int) -> OrderState:
    return order_state(ALICE, 5, OrderStatus.PARTIALLY_FILLED, filled=sequence, sequence=sequence)


@asynccontextmanager
async def telling(stand: Stand) -> AsyncIterator[Teller]:
    address = f"127.0.0.1:{stand.settings.market_data_internal_port}"
    async with teller(address) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        yield made
        group.cancel_scope.cancel()


@asynccontextmanager
async def alice(stand: Stand) -> AsyncIterator[Client]:
    """Signed in, with her snapshot."""
    stand.orders.tokens = {"alice-token": ALICE}
    async with stand.client() as client:
        await client.ask(op="auth", token="alice-token")
        await client.subscribe("orders")
        await client.next("orders")
        yield client


async def filled(client: Client) -> str:
    return str((await client.next("orders"))["data"]["filled_quantity"])


async def test_an_update_comes_before_kafka_brings_it_and_once(stand: Stand) -> None:
    async with stand.daemon(), alice(stand) as client, telling(stand) as direct:
        await stand.told(1, [state(1)])
        assert await filled(client) == "0.00001"
        direct.tell(BTC.partition, [updates_of(1, [state(1)]), updates_of(2, [state(2)])])
        assert await filled(client) == "0.00002"
        await stand.told(2, [state(2)])
        await client.quiet("orders")
        await stand.told(3, [state(3)])
        assert await filled(client) == "0.00003"
        direct.tell(BTC.partition, [updates_of(3, [state(3)])])
        await client.quiet("orders")


async def test_what_follows_a_hole_waits_for_kafka(stand: Stand) -> None:
    async with stand.daemon(), alice(stand) as client, telling(stand) as direct:
        await stand.told(1, [state(1)])
        assert await filled(client) == "0.00001"
        direct.tell(BTC.partition, [updates_of(3, [state(3)]), updates_of(4, [state(4)])])
        await client.quiet("orders")
        await stand.told(2, [state(2)])
        assert await filled(client) == "0.00002"
        await client.quiet("orders", 0.1)
        await stand.told(3, [state(3)])
        assert [await filled(client), await filled(client)] == ["0.00003", "0.00004"]
        await stand.told(4, [state(4)])
        await client.quiet("orders")


async def test_one_that_starts_again_waits_for_kafka_and_then_hears_directly(stand: Stand) -> None:
    async with telling(stand) as direct:
        async with stand.daemon():
            direct.tell(BTC.partition, [updates_of(number, [state(number)]) for number in (1, 2)])
        async with stand.daemon(), alice(stand) as client:
            await anyio.sleep(1)  # The line does not try at once again.
            direct.tell(BTC.partition, [updates_of(3, [state(3)])])
            await client.quiet("orders")
            await stand.told(2, [state(2)])
            await stand.told(3, [state(3)])
            assert [await filled(client), await filled(client)] == ["0.00002", "0.00003"]
            direct.tell(BTC.partition, [updates_of(4, [state(4)])])
            assert await filled(client) == "0.00004"


async def test_nonsense_is_refused_and_the_public_port_does_not_listen(stand: Stand) -> None:
    told = internal_pb2.Told(partition=BTC.partition, updates=b"\xff\xfe", after_sequence=1, after_order_id=1)
    request = internal_pb2.TellRequest(told=[told])
    async with stand.daemon(), alice(stand) as client:
        for port in (stand.settings.market_data_internal_port, stand.settings.market_data_port):
            async with grpc_channel(f"127.0.0.1:{port}") as channel:
                stub: internal_pb2_grpc.MarketDataInternalAsyncStub = (
                    internal_pb2_grpc.MarketDataInternalStub(channel)
                )
                if port == stand.settings.market_data_internal_port:
                    await stub.Tell(request, timeout=5)
                else:
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await stub.Tell(request, timeout=5)
                    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await stand.told(1, [state(1)])
        assert await filled(client) == "0.00001"
