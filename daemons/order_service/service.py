"""The RPCs: messages in, requests to the committer, messages out. No decision is made here.

`OrdersService` runs on both ports and differs only in how it learns who is calling.
"""

from collections.abc import AsyncIterator, Sequence

import anyio
import grpc.aio

from common import db
from common.core.errors import ExchangeError, Malformed
from common.core.messages import OrderType, SelfTradePrevention, Side, TimeInForce
from common.rpc import error_to_proto
from common.wire import market_to_proto
from daemons.order_service.committer import Committer
from daemons.order_service.identity import Context, Identify, Tokens
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.relay import Relays, set_back
from daemons.order_service.requests import (
    Accepted,
    Answer,
    CancelAccepted,
    CancelAllOrders,
    Canceling,
    CancelOrder,
    NewOrder,
    Request,
)
from daemons.order_service.testers import Testers
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc, orders_pb2_grpc
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty

BATCH_MOST = 1_000
# Calls of the gateway, which batches for many users.
PLACE_MOST = 5_000
# Numbers of the enumerations that a new order may carry; 0 leaves the choice to the exchange.
_SIDES, _TYPES = frozenset(map(int, Side)), frozenset(map(int, OrderType))
_TIMES_IN_FORCE = frozenset((0, *map(int, TimeInForce)))
_STPS = frozenset((0, *map(int, SelfTradePrevention)))


class OrdersService(orders_pb2_grpc.OrdersServicer):
    def __init__(self, identify: Identify, committer: Committer, queries: Queries, markets: Markets) -> None:
        self._identify = identify
        self._committer = committer
        self._queries = queries
        self._markets = markets

    async def ListMarkets(self, request: pb.ListMarketsRequest, context: Context) -> pb.ListMarketsResponse:
        markets = self._markets.by_id.values()
        return pb.ListMarketsResponse(markets=[market_to_proto(market) for market in markets])

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        user_id = await self._identify(context)
        [answer] = await self._committer.submit([_order(user_id, request.order)])
        return pb.SubmitResponse(accepted=_accepted(_raise(answer)))

    async def SubmitBatch(self, request: pb.SubmitBatchRequest, context: Context) -> pb.SubmitBatchResponse:
        user_id = await self._identify(context)
        return pb.SubmitBatchResponse(results=await self._submit(user_id, request.orders))

    async def SubmitStream(
        self, requests: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> AsyncIterator[pb.SubmitStreamResponse]:
        user_id = await self._identify(context)
        async for request in requests:
            yield pb.SubmitStreamResponse(results=await self._submit(user_id, request.orders))

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        user_id = await self._identify(context)
        [answer] = await self._committer.submit([CancelOrder(user_id, request.order_id)])
        canceled = _raise(answer)
        assert isinstance(canceled, CancelAccepted)
        return pb.CancelResponse(order_id=canceled.order_id, sequence=canceled.sequence)

    async def CancelAll(self, request: pb.CancelAllRequest, context: Context) -> pb.CancelAllResponse:
        user_id = await self._identify(context)
        [answer] = await self._committer.submit([CancelAllOrders(user_id, request.symbol)])
        canceling = _raise(answer)
        assert isinstance(canceling, Canceling)
        return pb.CancelAllResponse(canceling=canceling.orders)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        user_id = await self._identify(context)
        return pb.GetOrderResponse(order=await self._queries.order(user_id, request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        return await self._queries.orders(await self._identify(context), request)

    async def ListFills(self, request: pb.ListFillsRequest, context: Context) -> pb.ListFillsResponse:
        return await self._queries.fills(await self._identify(context), request)

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        return await self._queries.accounts(await self._identify(context))

    async def _submit(self, user_id: int, orders: Sequence[pb.NewOrder]) -> list[pb.SubmitResult]:
        if not 0 < len(orders) <= BATCH_MOST:
            raise Malformed(f"A batch has 1 to {BATCH_MOST} orders", {"orders": str(len(orders))})
        return await _submit_each(self._committer, [(user_id, order) for order in orders])


class InternalService(internal_pb2_grpc.OrderInternalServicer):
    def __init__(
        self, committer: Committer, tokens: Tokens, testers: Testers, pool: db.Pool, relays: Relays
    ) -> None:
        self._committer = committer
        self._tokens = tokens
        self._testers = testers
        self._pool = pool
        self._relays = relays

    async def Authenticate(
        self, request: internal.AuthenticateRequest, context: Context
    ) -> internal.AuthenticateResponse:
        return internal.AuthenticateResponse(user_id=await self._tokens.owner(request.token))

    async def Place(self, request: internal.PlaceRequest, context: Context) -> internal.PlaceResponse:
        if len(request.orders) > PLACE_MOST:
            raise Malformed(f"At most {PLACE_MOST} orders a call")
        orders = [(each.user_id, each.order) for each in request.orders]
        return internal.PlaceResponse(results=await _submit_each(self._committer, orders))

    async def Join(self, request: internal.JoinRequest, context: Context) -> internal.JoinResponse:
        return await self._testers.join()

    async def Recharge(
        self, request: internal.RechargeRequest, context: Context
    ) -> internal.RechargeResponse:
        return await self._testers.recharge(request.user_id)

    async def Rewind(self, request: internal.RewindRequest, context: Context) -> internal.RewindResponse:
        if request.partition not in self._relays.partitions:
            raise Malformed("There is no such partition", {"partition": str(request.partition)})
        async with self._pool.connection() as connection:
            next_sequence = await set_back(connection, request.partition, request.reason or "asked")
        self._relays.wake(request.partition)
        return internal.RewindResponse(next_sequence=next_sequence)


def register(server: grpc.aio.Server, orders: OrdersService, extra: InternalService | None = None) -> None:
    orders_pb2_grpc.add_OrdersServicer_to_server(orders, server)
    if extra is not None:
        internal_pb2_grpc.add_OrderInternalServicer_to_server(extra, server)


async def _submit_each(
    committer: Committer, orders: Sequence[tuple[int, pb.NewOrder]]
) -> list[pb.SubmitResult]:
    """One transaction for all; an order that cannot be read is refused in its place."""
    read = [_read(user_id, order) for user_id, order in orders]
    requests: list[Request] = [one for one in read if not isinstance(one, ExchangeError)]
    with anyio.CancelScope(shield=True):  # What reached the committer will be written; wait for it.
        answers = iter(await committer.submit(requests) if requests else ())
    return [_result(one if isinstance(one, ExchangeError) else next(answers)) for one in read]


def _read(user_id: int, order: pb.NewOrder) -> NewOrder | ExchangeError:
    try:
        return _order(user_id, order)
    except ExchangeError as error:
        return error


def _order(user_id: int, order: pb.NewOrder) -> NewOrder:
    """Fill in what may be left out; raises Malformed for what must not."""
    problems = {
        name: "is missing or unknown"
        for name, value, known in (
            ("side", order.side, _SIDES),
            ("type", order.type, _TYPES),
            ("time_in_force", order.time_in_force, _TIMES_IN_FORCE),
            ("stp", order.stp, _STPS),
        )
        if value not in known
    }
    if problems:
        raise Malformed("The order cannot be read", problems)
    usual = TimeInForce.IOC if order.type == ty.ORDER_TYPE_MARKET else TimeInForce.GTC
    return NewOrder(
        user_id,
        order.symbol,
        Side(order.side),
        OrderType(order.type),
        TimeInForce(order.time_in_force or usual),
        order.post_only,
        SelfTradePrevention(order.stp or SelfTradePrevention.CANCEL_TAKER),
        order.price_ticks,
        order.qty_lots,
        order.quote_atoms,
        order.client_order_id,
    )


def _raise(answer: Answer) -> Accepted | CancelAccepted | Canceling:
    if isinstance(answer, ExchangeError):
        raise answer
    return answer


def _accepted(answer: object) -> pb.Accepted:
    assert isinstance(answer, Accepted)
    return pb.Accepted(
        order_id=answer.order_id,
        client_order_id=answer.client_order_id,
        symbol=answer.symbol,
        sequence=answer.sequence,
        created_us=answer.created_us,
        repeated=answer.repeated,
    )


def _result(answer: Answer) -> pb.SubmitResult:
    if isinstance(answer, ExchangeError):
        return pb.SubmitResult(error=error_to_proto(answer))
    return pb.SubmitResult(accepted=_accepted(answer))
