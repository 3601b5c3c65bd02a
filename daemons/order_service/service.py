"""The RPCs: messages in, requests to the committer, messages out. No decision is made here.

`OrdersService` runs on both ports and differs only in how it learns who is calling.
"""

from collections.abc import AsyncIterator, Sequence

import anyio
import grpc.aio

from common import db, stops
from common.core.errors import ExchangeError, Malformed
from common.identity.permissions import READ, TRADE
from common.wire import market_to_proto
from daemons.order_service.committer import Committer
from daemons.order_service.idempotency import Keys
from daemons.order_service.identity import Context, Identify
from daemons.order_service.key_desk import KeyDesk
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
from daemons.order_service.settled import SettledOrders
from daemons.order_service.stream import answer_stream
from daemons.order_service.testers import Testers
from daemons.order_service.translate import (
    Results,
    fill_accepted,
    fill_results,
    order_or_error,
    read_batch,
    read_order,
)
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc, orders_pb2_grpc
from exchange.v1 import orders_pb2 as pb

# Calls of the gateway, which batches for many users.
PLACE_MOST = 5_000


class OrdersService(orders_pb2_grpc.OrdersServicer):
    def __init__(
        self,
        identify: Identify,
        committer: Committer,
        queries: Queries,
        markets: Markets,
        settled: SettledOrders,
        *,
        claimed_keys: bool = False,
    ) -> None:
        """`claimed_keys`: the callers name idempotency keys only that they have claimed, as gateways do."""
        self._identify = identify
        self._claimed_keys = claimed_keys
        self._committer = committer
        self._queries = queries
        self._markets = markets
        self._settled = settled

    async def ListMarkets(self, request: pb.ListMarketsRequest, context: Context) -> pb.ListMarketsResponse:
        markets = self._markets.by_id.values()
        return pb.ListMarketsResponse(markets=[market_to_proto(market) for market in markets])

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        user_id = (await self._identify(context, "Submit", TRADE)).user_id
        [answer] = await self._committer.submit([read_order(user_id, request.order)])
        response = pb.SubmitResponse()
        fill_accepted(response.accepted, _raise(answer))
        return response

    async def SubmitBatch(self, request: pb.SubmitBatchRequest, context: Context) -> pb.SubmitBatchResponse:
        user_id = (await self._identify(context, "SubmitBatch", TRADE)).user_id
        response = pb.SubmitBatchResponse()
        await _submit_each(self._committer, read_batch(user_id, request.orders), response)
        return response

    async def SubmitStream(  # type: ignore[override]  # The stubs know no handler that writes by itself.
        self, requests: AsyncIterator[pb.SubmitStreamRequest], context: Context
    ) -> None:
        guest = await self._identify(context, "SubmitStream", TRADE)
        await answer_stream(guest.user_id, guest.watched(requests), context.write, self._committer)

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.CancelResponse:
        user_id = (await self._identify(context, "Cancel", TRADE)).user_id
        [answer] = await self._committer.submit([CancelOrder(user_id, request.order_id, self._key(request))])
        canceled = _raise(answer)
        assert isinstance(canceled, CancelAccepted)
        return pb.CancelResponse(order_id=canceled.order_id, sequence=canceled.sequence)

    async def CancelAll(self, request: pb.CancelAllRequest, context: Context) -> pb.CancelAllResponse:
        user_id = (await self._identify(context, "CancelAll", TRADE)).user_id
        sweep = CancelAllOrders(user_id, request.symbol, self._key(request))
        [answer] = await self._committer.submit([sweep])
        canceling = _raise(answer)
        assert isinstance(canceling, Canceling)
        return pb.CancelAllResponse(canceling=canceling.orders)

    async def Await(self, request: pb.AwaitRequest, context: Context) -> pb.AwaitResponse:
        guest = await self._identify(context, "Await", READ)
        return await self._settled.of(guest.user_id, request)

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        user_id = (await self._identify(context, "GetOrder", READ)).user_id
        return pb.GetOrderResponse(order=await self._queries.order(user_id, request.order_id))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        guest = await self._identify(context, "ListOrders", READ)
        return await self._queries.orders(guest.user_id, request)

    async def ListFills(self, request: pb.ListFillsRequest, context: Context) -> pb.ListFillsResponse:
        guest = await self._identify(context, "ListFills", READ)
        return await self._queries.fills(guest.user_id, request)

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        guest = await self._identify(context, "ListAccounts", READ)
        return await self._queries.accounts(guest.user_id)

    def _key(self, request: pb.CancelRequest | pb.CancelAllRequest) -> str:
        return request.idempotency_key if self._claimed_keys else ""


class InternalService(internal_pb2_grpc.OrderInternalServicer):
    def __init__(
        self,
        committer: Committer,
        key_desk: KeyDesk,
        testers: Testers,
        pool: db.Pool,
        relays: Relays,
    ) -> None:
        self._committer = committer
        self._keys = Keys(pool)
        self._key_desk = key_desk
        self._testers = testers
        self._pool = pool
        self._relays = relays

    async def Authenticate(
        self, request: internal.AuthenticateRequest, context: Context
    ) -> internal.AuthenticateResponse:
        return await self._key_desk.authenticate(request)

    async def FindKey(self, request: internal.FindKeyRequest, context: Context) -> internal.FindKeyResponse:
        return await self._key_desk.find_key(request)

    async def OpenSession(
        self, request: internal.OpenSessionRequest, context: Context
    ) -> internal.OpenSessionResponse:
        return await self._key_desk.open_session(request)

    async def CloseSession(
        self, request: internal.CloseSessionRequest, context: Context
    ) -> internal.CloseSessionResponse:
        return await self._key_desk.close_session(request)

    async def Place(self, request: internal.PlaceRequest, context: Context) -> internal.PlaceResponse:
        if len(request.orders) > PLACE_MOST:
            raise Malformed(f"At most {PLACE_MOST} orders a call")
        response = internal.PlaceResponse()
        read = [order_or_error(each.user_id, each.order) for each in request.orders]
        await _submit_each(self._committer, read, response)
        return response

    async def Join(self, request: internal.JoinRequest, context: Context) -> internal.JoinResponse:
        return await self._testers.join()

    async def Recharge(
        self, request: internal.RechargeRequest, context: Context
    ) -> internal.RechargeResponse:
        return await self._testers.recharge(request.user_id, request.reference)

    async def ClaimKeys(
        self, request: internal.ClaimKeysRequest, context: Context
    ) -> internal.ClaimKeysResponse:
        return internal.ClaimKeysResponse(states=await self._keys.claim(request.claims))

    async def SettleKeys(
        self, request: internal.SettleKeysRequest, context: Context
    ) -> internal.SettleKeysResponse:
        return internal.SettleKeysResponse(states=await self._keys.settle(request.settlements))

    async def Rewind(self, request: internal.RewindRequest, context: Context) -> internal.RewindResponse:
        if request.partition not in self._relays.partitions:
            raise Malformed("There is no such partition", {"partition": str(request.partition)})
        async with self._pool.connection() as connection:
            next_sequence = await set_back(connection, request.partition, request.reason or "asked")
        self._relays.wake(request.partition)
        return internal.RewindResponse(next_sequence=next_sequence)

    async def ReportStop(
        self, request: internal.ReportStopRequest, context: Context
    ) -> internal.ReportStopResponse:
        if request.partition not in self._relays.partitions or not (request.service and request.reason):
            raise Malformed("A stop has a partition, a service and a reason")
        async with self._pool.connection() as connection:
            written = await stops.stop(
                connection,
                request.partition,
                request.service,
                request.reason,
                topic=request.topic or None,
                offset=request.offset if request.topic else None,
                record=request.record if request.topic else None,
                sequence=request.sequence or None,
                token=request.token,
            )
        return internal.ReportStopResponse(written=written)


def register(server: grpc.aio.Server, orders: OrdersService, extra: InternalService | None = None) -> None:
    orders_pb2_grpc.add_OrdersServicer_to_server(orders, server)
    if extra is not None:
        internal_pb2_grpc.add_OrderInternalServicer_to_server(extra, server)


async def _submit_each(
    committer: Committer, read: Sequence[NewOrder | ExchangeError], response: Results
) -> None:
    """One transaction for all; an order that cannot be read is refused in its place."""
    requests: list[Request] = [one for one in read if not isinstance(one, ExchangeError)]
    with anyio.CancelScope(shield=True):  # What reached the committer will be written; wait for it.
        answers = iter(await committer.submit(requests) if requests else ())
    fill_results(response, [one if isinstance(one, ExchangeError) else next(answers) for one in read])


def _raise(answer: Answer) -> Accepted | CancelAccepted | Canceling:
    if isinstance(answer, ExchangeError):
        raise answer
    return answer
