"""A market-data daemon in this process, on real servers, with a small order-service of the test's own.

The test plays matching and the settler: it publishes what they would, in their wire format.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time_ns
from typing import Any, Self
from uuid import uuid4

import anyio
import grpc
import grpc.aio
from websockets.asyncio.client import ClientConnection, connect

from common.config import Settings
from common.core.errors import Unauthenticated
from common.core.messages import (
    GENESIS_CHAIN,
    BookUpdate,
    Market,
    OrderState,
    OrderStatus,
    Reason,
    Settlement,
    Side,
    Trade,
)
from common.db import connect as connect_db
from common.identity.permissions import ALL
from common.kafka import Producer, producer
from common.migrate import migrate
from common.rpc import serve_grpc
from common.supervise import Lifecycle
from common.topics import Topics, ensure_topics, topics
from common.wire import encode_book, encode_order_updates, encode_trades, market_to_proto
from daemons.local.ports import free_port
from daemons.local.prepare import default_markets
from daemons.local.servers import Servers
from daemons.market_data.__main__ import main
from exchange.v1 import internal_pb2, orders_pb2, types_pb2
from tests.harness.servers import bare_settings

PARTITIONS = 2
BTC, ETH = default_markets(PARTITIONS)
Message = dict[str, Any]


class FakeOrders:
    """What market-data asks of order-service; the other methods are not there."""

    def __init__(self) -> None:
        self.markets: list[Market] = [BTC, ETH]
        self.tokens: dict[str, int] = {}
        self.orders: dict[int, list[orders_pb2.Order]] = {}
        self.fills: dict[int, list[types_pb2.Fill]] = {}
        self.accounts: dict[int, list[types_pb2.Account]] = {}
        self.before_orders = anyio.Event()  # Set when ListOrders has been asked ...
        self.may_list = anyio.Event()  # ... and it answers when this is set.
        self.may_list.set()

    async def list_markets(self, _request: orders_pb2.ListMarketsRequest, _context: Any) -> object:
        return orders_pb2.ListMarketsResponse(markets=[market_to_proto(market) for market in self.markets])

    async def authenticate(self, request: internal_pb2.AuthenticateRequest, _context: Any) -> object:
        if request.token not in self.tokens:
            raise Unauthenticated
        return internal_pb2.AuthenticateResponse(user_id=self.tokens[request.token], permissions=ALL)

    async def list_orders(self, request: orders_pb2.ListOrdersRequest, context: Any) -> object:
        assert request.only_live
        found = orders_pb2.ListOrdersResponse(orders=self.orders.get(_caller(context), []))
        self.before_orders.set()
        await self.may_list.wait()
        return found

    async def list_fills(self, _request: orders_pb2.ListFillsRequest, context: Any) -> object:
        return orders_pb2.ListFillsResponse(fills=self.fills.get(_caller(context), []))

    async def list_accounts(self, _request: orders_pb2.ListAccountsRequest, context: Any) -> object:
        return orders_pb2.ListAccountsResponse(accounts=self.accounts.get(_caller(context), []))

    def register(self, server: grpc.aio.Server) -> None:
        orders: dict[str, tuple[Any, Any]] = {
            "ListMarkets": (self.list_markets, orders_pb2.ListMarketsRequest),
            "ListOrders": (self.list_orders, orders_pb2.ListOrdersRequest),
            "ListFills": (self.list_fills, orders_pb2.ListFillsRequest),
            "ListAccounts": (self.list_accounts, orders_pb2.ListAccountsRequest),
        }
        internal: dict[str, tuple[Any, Any]] = {
            "Authenticate": (self.authenticate, internal_pb2.AuthenticateRequest)
        }
        for service, methods in (("Orders", orders), ("OrderInternal", internal)):
            handlers: dict[str, Any] = {
                name: grpc.unary_unary_rpc_method_handler(
                    behavior, request.FromString, lambda answer: answer.SerializeToString()
                )
                for name, (behavior, request) in methods.items()
            }
            generic = grpc.method_handlers_generic_handler(f"exchange.v1.{service}", handlers)
            server.add_generic_rpc_handlers((generic,))


def _caller(context: Any) -> int:
    return int(dict(context.invocation_metadata())["x-user-id"])


class Client:
    """A WebSocket client that sorts what it gets."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._waiting: list[Message] = []

    async def say(self, **message: object) -> None:
        await self.socket.send(json.dumps(message))

    async def ask(self, **message: object) -> Message:
        """Send a request and give its answer."""
        await self.say(**message)
        return await self.next(op=None)

    async def next(self, channel: str = "", op: str | None = "") -> Message:
        """The next message of the channel, or with `op` None the next answer; others are kept."""

        def fits(message: Message) -> bool:
            return "op" in message if op is None else message.get("channel") == channel

        for number, message in enumerate(self._waiting):
            if fits(message):
                return self._waiting.pop(number)
        with anyio.fail_after(10):
            while True:
                came: Message = json.loads(await self.socket.recv())
                if fits(came):
                    return came
                self._waiting.append(came)

    async def subscribe(self, *channels: str) -> None:
        answer = await self.ask(op="subscribe", channels=list(channels), id="s")
        assert answer == {"op": "subscribed", "channels": list(channels), "id": "s"}

    async def quiet(self, channel: str, for_s: float = 0.4) -> None:
        """Assert that nothing comes on the channel."""
        with anyio.move_on_after(for_s):
            message = await self.next(channel)
            raise AssertionError(message)


@dataclass
class Stand:
    """The daemon under test and everything around it."""

    settings: Settings
    topics: Topics
    producer: Producer
    orders: FakeOrders
    life: Lifecycle | None = None
    sequences: dict[int, int] = field(default_factory=dict)
    trade_ids: dict[int, int] = field(default_factory=dict)

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.settings.market_data_ws_port}/ws"

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[Self]:
        """The daemon while the body runs, ready when it starts."""
        self.life = Lifecycle(self.settings.drain_s)
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(main, self.settings, self.life)
                await self.until_ready()
                yield self
                self.life.stopping.set()

    async def until_ready(self) -> None:
        with anyio.fail_after(20):
            while not await self.ready():
                await anyio.sleep(0.05)

    async def ready(self) -> bool:
        try:
            async with await anyio.connect_tcp("127.0.0.1", self.settings.health_port) as stream:
                await stream.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
                return (await stream.receive()).startswith(b"HTTP/1.1 200")
        except (OSError, anyio.EndOfStream):
            return False

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        async with connect(self.ws_url, proxy=None, **options) as socket:
            yield Client(socket)

    # ---- what matching publishes ----------------------------------------------------------------

    async def book(
        self,
        market: Market = BTC,
        *,
        bids: Sequence[tuple[int, int]] = (),
        asks: Sequence[tuple[int, int]] = (),
        full: bool = False,
        token: int = 1,
        sequence: int | None = None,
        previous: int | None = None,
        last_trade_id: int = 0,
    ) -> int:
        """Publish a change of the book, or a full one; gives its sequence, the next one unless named."""
        before = self.sequences.get(market.market_id, 0)
        sequence = before + 1 if sequence is None else sequence
        previous = (0 if full else before) if previous is None else previous
        self.sequences[market.market_id] = sequence
        update = BookUpdate(
            market.market_id, full, sequence, previous, last_trade_id, list(bids), list(asks), now_us()
        )
        await self.producer.send(self.topics.orderbook, market.partition, encode_book(update), token=token)
        return sequence

    async def repeat_book(self, market: Market) -> None:
        """A record that changes nothing."""
        await self.book(market, sequence=self.sequences[market.market_id], previous=0)

    def next_trade(self, market: Market = BTC, *, price: int = 100, qty: int = 1, **more: int) -> Trade:
        trade_id = self.trade_ids.get(market.market_id, 0) + 1
        self.trade_ids[market.market_id] = trade_id
        fees = {"maker_fee_atoms": 1, "taker_fee_atoms": 2}
        users = {"maker_user_id": 1, "taker_user_id": 2, "maker_order_id": 10, "taker_order_id": 20}
        ids = (market.market_id, trade_id, trade_id)
        return Trade(*ids, price, qty, Side.BUY, **(fees | users | more))

    async def trades(self, *trades: Trade, market: Market = BTC, token: int = 1, time_us: int = 0) -> None:
        value = encode_trades(
            partition=market.partition,
            last_sequence=trades[-1].sequence,
            trades=trades,
            time_us=time_us or now_us(),
        )
        await self.producer.send(self.topics.trades, market.partition, value, token=token)

    # ---- what the settler does --------------------------------------------------------------------

    async def settle(self, *trades: Trade, market: Market = BTC, time_us: int = 0) -> None:
        """Write the trades where TX2 would."""
        async with connect_db(self.settings.postgres_url, "test") as connection:
            for trade in trades:
                await connection.execute(
                    "INSERT INTO trades VALUES (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%s)",
                    (
                        trade.market_id,
                        trade.trade_id,
                        market.partition,
                        trade.sequence,
                        time_us or now_us(),
                        trade.price_ticks,
                        trade.qty_lots,
                        int(trade.taker_side),
                        trade.maker_order_id,
                        trade.taker_order_id,
                        trade.maker_user_id,
                        trade.taker_user_id,
                        trade.maker_fee_atoms,
                        trade.taker_fee_atoms,
                    ),
                )

    async def told(
        self, sequence: int, states: Sequence[OrderState], trades: Sequence[Trade] = (), market: Market = BTC
    ) -> None:
        """Publish the order updates of a settlement."""
        value = updates_of(sequence, states, trades, market)
        await self.producer.send(self.topics.order_updates, market.partition, value, token=1)


def updates_of(
    sequence: int, states: Sequence[OrderState], trades: Sequence[Trade] = (), market: Market = BTC
) -> bytes:
    """The order updates of a settlement."""
    chains = (GENESIS_CHAIN, GENESIS_CHAIN)
    numbers = (market.partition, sequence, sequence, now_us())
    settlement = Settlement(*numbers, *chains, 1, list(trades), list(states))
    [value] = encode_order_updates(settlement, {BTC.market_id: BTC, ETH.market_id: ETH})
    return value


def order_state(
    user_id: int, order_id: int, status: OrderStatus, *, filled: int = 0, sequence: int = 1
) -> OrderState:
    place = (order_id, user_id, BTC.market_id, "mine", Side.BUY)
    return OrderState(*place, status, Reason.NONE, filled, filled * 100_000, 0, 0, 0, sequence)


def live_order(user_id: int, order_id: int, status: OrderStatus, *, filled: int = 0) -> orders_pb2.Order:
    return orders_pb2.Order(
        order_id=order_id,
        client_order_id="mine",
        user_id=user_id,
        market_id=BTC.market_id,
        symbol=BTC.symbol,
        side=types_pb2.SIDE_BUY,
        type=types_pb2.ORDER_TYPE_LIMIT,
        price_ticks=100,
        qty_lots=10,
        filled_lots=filled,
        status=types_pb2.OrderStatus.ValueType(status),
        sequence=1,
        created_us=now_us(),
        updated_us=now_us(),
    )


def now_us() -> int:
    return time_ns() // 1_000


@asynccontextmanager
async def open_stand(servers: Servers, database: str, **changes: object) -> AsyncIterator[Stand]:
    """Everything but the daemon, with topics and keys of its own."""
    chosen: Mapping[str, object] = {
        "postgres_url": database,
        "redis_url": servers.redis_url,
        "kafka_bootstrap": servers.kafka_bootstrap,
        "topic_prefix": f"md-{uuid4().hex[:12]}",
        "partitions": PARTITIONS,
        "market_data_port": free_port(),
        "market_data_ws_port": free_port(),
        "market_data_internal_port": free_port(),
        "health_port": free_port(),
        "instance": "market-data-under-test",
        "local_mode": True,
        "lease_s": 1.0,
        "lease_renew_s": 0.2,
    }
    orders = FakeOrders()
    async with serve_grpc(orders.register, "127.0.0.1:0", service_names=[], drain_s=0.1) as port:
        settings = bare_settings(
            **{**chosen, "orders_internal_address": f"127.0.0.1:{port}", **changes},
        )
        await migrate(settings.postgres_url, PARTITIONS)
        await ensure_topics(settings)
        async with producer(settings) as sender:
            yield Stand(settings, topics(settings), sender, orders)
