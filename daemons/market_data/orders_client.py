"""What market-data asks order-service for, over the internal port.

Every call has a deadline and raises an ExchangeError when it fails.
"""

from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio

from common.core.messages import Market
from common.identity.caller import Caller, SigningKey, caller_from, signing_key_from
from common.rpc import from_rpc_error, grpc_channel
from common.tls import Tls
from common.wire import market_from_proto
from exchange.v1 import internal_pb2, internal_pb2_grpc, orders_pb2, orders_pb2_grpc, types_pb2

CALL_S = 3.0
PAGE = 1_000
MAX_LIVE_ORDERS = 10_000  # The newest ones; a snapshot is one message.

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]


class OrdersClient:
    """The internal port of order-service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        # The generated stubs serve both kinds of channel; their types know which.
        self._orders: orders_pb2_grpc.OrdersAsyncStub = orders_pb2_grpc.OrdersStub(channel)
        self._internal: internal_pb2_grpc.OrderInternalAsyncStub = internal_pb2_grpc.OrderInternalStub(
            channel
        )

    async def authenticate(self, token: str) -> Caller:
        """Whose token it is; raises Unauthenticated when it is nobody's."""
        request = internal_pb2.AuthenticateRequest(token=token)
        return caller_from(await _answer(self._internal.Authenticate(request, timeout=CALL_S)))

    async def find_key(self, api_key: str) -> SigningKey:
        """A live API key; raises Unauthenticated."""
        request = internal_pb2.FindKeyRequest(api_key=api_key)
        return signing_key_from(await _answer(self._internal.FindKey(request, timeout=CALL_S)))

    async def markets(self) -> list[Market]:
        answer = await _answer(self._orders.ListMarkets(orders_pb2.ListMarketsRequest(), timeout=CALL_S))
        return [market_from_proto(raw) for raw in answer.markets]

    async def live_orders(self, user_id: int) -> list[orders_pb2.Order]:
        """Newest first, at most MAX_LIVE_ORDERS."""
        found: list[orders_pb2.Order] = []
        cursor = ""
        while len(found) < MAX_LIVE_ORDERS:
            request = orders_pb2.ListOrdersRequest(only_live=True, limit=PAGE, cursor=cursor)
            answer = await _answer(
                self._orders.ListOrders(request, timeout=CALL_S, metadata=_caller(user_id))
            )
            found.extend(answer.orders)
            cursor = answer.cursor
            if not cursor:
                break
        return found

    async def fills(self, user_id: int, limit: int) -> Sequence[types_pb2.Fill]:
        """Newest first."""
        request = orders_pb2.ListFillsRequest(limit=limit)
        answer = await _answer(self._orders.ListFills(request, timeout=CALL_S, metadata=_caller(user_id)))
        return answer.fills

    async def accounts(self, user_id: int) -> Sequence[types_pb2.Account]:
        request = orders_pb2.ListAccountsRequest()
        answer = await _answer(self._orders.ListAccounts(request, timeout=CALL_S, metadata=_caller(user_id)))
        return answer.accounts


def _caller(user_id: int) -> Metadata:
    return (("x-user-id", str(user_id)),)


async def _answer(call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


@asynccontextmanager
async def orders_client(address: str, tls: Tls | None = None) -> AsyncIterator[OrdersClient]:
    async with grpc_channel(address, tls) as channel:
        yield OrdersClient(channel)
