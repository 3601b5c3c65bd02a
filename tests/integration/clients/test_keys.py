"""Signed by a key, on every way in: HTTP, the stream and gRPC; also with a clock that is wrong."""

import time
from datetime import timedelta

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common import keys
from common.identity.master_keys import vault_of
from exchange_client import (
    Credentials,
    Ed25519Key,
    Exchange,
    HmacKey,
    LimitOrder,
    OrdersEvent,
    Unauthenticated,
)
from exchange_client.clock import Clock
from exchange_client.grpc_orders import GrpcOrders
from tests.harness import exchange as harness
from tests.integration.end_to_end.doors import in_database

pytestmark = pytest.mark.anyio

OFF_S = timedelta(hours=3).total_seconds()


def limit() -> LimitOrder:
    return LimitOrder(symbol="ETH-USD", side="BUY", price=1000, quantity="0.01")


@pytest.fixture(scope="module", params=["hmac", "ed25519"])
def key(exchange: harness.Exchange, request: pytest.FixtureRequest) -> Credentials:
    user = exchange.join()
    if request.param == "hmac":
        return HmacKey(str(user.answer["api_key"]), str(user.answer["api_secret"]))
    private = Ed25519PrivateKey.generate()
    public, vault = private.public_key().public_bytes_raw(), vault_of(exchange.settings)
    made = in_database(
        exchange,
        lambda connection: keys.create_key(connection, vault, int(user.user_id), public_key=public),
    )
    return Ed25519Key(made.api_key, private)


async def test_a_key_opens_http_and_the_stream(exchange: harness.Exchange, key: Credentials) -> None:
    async with Exchange(exchange.base_url, key) as bot, bot.stream() as stream:
        orders = stream.subscribe("orders")
        with anyio.fail_after(20):
            snapshot = await anext(orders)
            accepted = await bot.place(limit())
            update = await anext(orders)
        assert snapshot.snapshot
        assert isinstance(update, OrdersEvent)
        assert update.orders[0].order_id == accepted.order_id
        # Many in the same millisecond: each has a signature of its own.
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(bot.accounts)
        assert accepted.order_id in [order.order_id async for order in bot.orders(symbol="ETH-USD")]
        await bot.cancel_all()


async def test_a_clock_may_be_hours_off(
    exchange: harness.Exchange, key: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Exchange(exchange.base_url, key) as bot:
        monkeypatch.setattr(bot.clock, "_now_s", lambda: time.time() - OFF_S)
        await bot.accounts()
        assert abs(bot.clock.offset_s - OFF_S) < 5
        monkeypatch.setattr(bot.clock, "_now_s", lambda: time.time() + OFF_S)  # Somebody has set it.
        await bot.accounts()
        assert abs(bot.clock.offset_s + OFF_S) < 5


async def test_a_key_opens_grpc_also_with_a_wrong_clock(
    exchange: harness.Exchange, key: Credentials, anyio_backend_name: str
) -> None:
    if anyio_backend_name != "asyncio":
        return  # grpc.aio is for asyncio alone.
    for clock in (Clock(), Clock(lambda: time.time() + OFF_S)):
        async with GrpcOrders(exchange.orders_address, key, clock=clock) as orders:
            accepted = await orders.place(limit())
            assert (await orders.cancel(accepted.order_id)).order_id == accepted.order_id


async def test_a_wrong_secret_is_told_so(exchange: harness.Exchange, key: Credentials) -> None:
    wrong = HmacKey(str(exchange.join().answer["api_key"]), "guessed")
    async with Exchange(exchange.base_url, wrong) as bot, bot.stream() as stream:
        with pytest.raises(Unauthenticated) as raised:
            await bot.accounts()
        assert raised.value.code == "SIGNATURE_WRONG"
        with anyio.fail_after(20), pytest.raises(Unauthenticated):
            await anext(stream.subscribe("orders"))
