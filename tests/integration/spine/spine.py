"""Order-services and matchings as processes, without the other daemons, and what a test asks of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import grpc
import grpc.aio

from common import db
from common.audit import audit
from common.kafka import Message, Producer, producer
from common.kafka_reader import Record, reader
from common.rpc import grpc_channel
from common.topics import topics
from daemons.local.ports import free_port
from exchange.v1 import internal_pb2, internal_pb2_grpc, orders_pb2, orders_pb2_grpc
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Daemon, Exchange

ORDER_SERVICE, SECOND = "order-service", "order-service-2"
MATCHINGS = ("matching-1", "matching-2")
WITHIN_S = 30.0
T = TypeVar("T")
BUY, SELL = ty.SIDE_BUY, ty.SIDE_SELL

_SETTLED = """
SELECT bool_and(w.sequence = s.last_sequence) FROM watermarks w JOIN shards s USING (partition)
"""
_LEADER = "SELECT holder, fencing_token FROM partition_leader_locks WHERE service = %s AND partition = %s"


@dataclass
class Service:
    """One order-service as its callers see it."""

    orders: "orders_pb2_grpc.OrdersAsyncStub"  # The async names stand in the .pyi alone.
    internal: "internal_pb2_grpc.OrderInternalAsyncStub"


@dataclass
class Spine:
    """Every step of a test is one call; waits end with TimeoutError and the ends of the logs."""

    exchange: Exchange
    connection: db.Connection
    kafka: Producer
    service: Service

    async def join(self) -> int:
        return (await retried(lambda: self.service.internal.Join(internal_pb2.JoinRequest()))).user_id

    async def place(
        self, user: int, *orders: orders_pb2.NewOrder, service: Service | None = None
    ) -> list[orders_pb2.Accepted]:
        """Place as a user who has no answer does: the same orders again, until there is one."""
        request = orders_pb2.SubmitBatchRequest(orders=orders)
        own = service or self.service
        answer = await retried(lambda: own.orders.SubmitBatch(request, metadata=caller(user)))
        for result in answer.results:
            assert result.HasField("accepted"), result
        return [result.accepted for result in answer.results]

    async def cancel(self, user: int, order_id: int) -> None:
        request = orders_pb2.CancelRequest(order_id=order_id)
        await retried(lambda: self.service.orders.Cancel(request, metadata=caller(user)))

    async def cancel_all(self, *users: int) -> None:
        """Leave an empty book to the next test."""
        await self.settled()
        for user in users:
            await self._cancel_all_of(user)
        await self.settled()

    async def _cancel_all_of(self, user: int) -> None:
        request = orders_pb2.CancelAllRequest()
        await retried(lambda: self.service.orders.CancelAll(request, metadata=caller(user)))

    async def order(self, user: int, order_id: int) -> orders_pb2.Order:
        request = orders_pb2.GetOrderRequest(order_id=order_id)
        return (await retried(lambda: self.service.orders.GetOrder(request, metadata=caller(user)))).order

    async def rows(self, statement: str, *given: object) -> list[tuple[object, ...]]:
        return await (await self.connection.execute(statement.encode(), given)).fetchall()

    async def settled(self) -> None:
        """Until everything that was accepted is settled."""

        async def all_settled() -> bool:
            return await self.rows(_SETTLED) == [(True,)]

        await self.until(all_settled)

    async def until(self, condition: Callable[[], Awaitable[bool]], within_s: float = WITHIN_S) -> None:
        try:
            with anyio.fail_after(within_s):
                while not await condition():
                    await anyio.sleep(0.02)
        except TimeoutError:
            raise TimeoutError(self.exchange.tails()) from None

    async def check(self) -> None:
        """Everything is settled, and the exchange's own audit finds nothing."""
        await self.settled()
        assert [finding for finding in await audit(self.connection) if not finding.ok] == []

    async def leader(self, service: str, partition: int) -> tuple[str, int]:
        """(holder, token)"""
        [(holder, token)] = await self.rows(_LEADER, service, partition)
        assert isinstance(holder, str)
        assert isinstance(token, int)
        return holder, token

    async def records(self, topic: str, partition: int) -> list[Record]:
        """Everything that the partition of a topic (`orders`, `settlements`, ...) holds now."""
        name = getattr(topics(self.exchange.settings), topic)
        found: list[Record] = []
        async with reader(self.exchange.settings, name, partition, lambda earliest, _: earliest) as source:
            with anyio.fail_after(WITHIN_S):
                while not found or found[-1].offset < (source.known_end() or 0) - 1:
                    found += await source.poll()
        return found

    async def inject(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """Send records, as they are, headers included."""
        name = getattr(topics(self.exchange.settings), topic)
        await self.kafka.send_many(
            [Message(name, partition, one.value, one.token, one.source_offset) for one in records]
        )

    async def money(self) -> list[list[tuple[object, ...]]]:
        """What must not change when nothing is traded."""
        tables = ("accounts", "orders", "trades", "watermarks")
        columns = {"watermarks": "partition, sequence, chain"}
        return [await self.rows(f"SELECT {columns.get(t, '*')} FROM {t} ORDER BY 1, 2") for t in tables]


def caller(user: int) -> tuple[tuple[str, str], ...]:
    return (("x-user-id", str(user)),)


def order(
    side: ty.Side.ValueType, price_ticks: int, qty_lots: int, *, client: str = "", symbol: str = "BTC-USD"
) -> orders_pb2.NewOrder:
    return orders_pb2.NewOrder(
        symbol=symbol,
        side=side,
        type=ty.ORDER_TYPE_LIMIT,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        client_order_id=client,
    )


async def retried(call: Callable[[], Awaitable[T]]) -> T:
    """Ask again while nobody answers: the daemon starts, restarts or is busy."""
    with anyio.fail_after(WITHIN_S):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                    raise
                await anyio.sleep(0.05)


@asynccontextmanager
async def service_at(address: str) -> AsyncIterator[Service]:
    async with grpc_channel(address) as channel:
        yield Service(
            orders_pb2_grpc.OrdersStub(channel),
            internal_pb2_grpc.OrderInternalStub(channel),
        )


@asynccontextmanager
async def spine_of(exchange: Exchange) -> AsyncIterator[Spine]:
    async with (
        db.connect(exchange.settings.postgres_url, "spine test") as connection,
        producer(exchange.settings) as kafka,
        service_at(exchange.orders_internal_address) as service,
    ):
        yield Spine(exchange, connection, kafka, service)


@contextmanager
def second_order_service(exchange: Exchange, logs: Path) -> Iterator[str]:
    """Another order-service of the same exchange while the body runs; gives its internal address."""
    first = exchange.daemons[ORDER_SERVICE].program
    port = free_port()
    own = {
        "EXCHANGE_INSTANCE": SECOND,
        "EXCHANGE_ORDERS_PORT": str(free_port()),
        "EXCHANGE_ORDERS_INTERNAL_PORT": str(port),
        "EXCHANGE_ADMIN_PORT": str(free_port()),
        "EXCHANGE_HEALTH_PORT": "0",
    }
    assert first.env is not None
    daemon = Daemon(replace(first, name=SECOND, log=logs / f"{SECOND}.log", env={**first.env, **own}))
    daemon.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        daemon.end()
