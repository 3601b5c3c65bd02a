"""The services behind the gateway, as the routes use them: bridged calls with deadlines and identity."""

from collections.abc import Sequence
from typing import TypeVar

import grpc
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.core.errors import ExchangeError, Unavailable
from common.core.messages import Market
from common.identity.caller import Caller, SigningKey, caller_from, signing_key_from
from common.rpc import error_to_proto
from common.wire import market_from_proto
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc, market_data_pb2_grpc, orders_pb2_grpc
from exchange.v1 import orders_pb2 as pb
from gateway.batching import UNKNOWN
from gateway.bridge import Bridge, connection_lost, never, unavailable
from gateway.calls import Call

T = TypeVar("T")
R = TypeVar("R")

READ_S = 3.0  # Deadline of a query.
WRITE_S = 5.0  # Deadline of a call that waits for TX1; longer than its database's failover of a session.
PROBE_S = 1.0  # Deadline of a readiness probe.
LEAST_S = 0.5  # Without that much time left, nothing is sent again.


class Services:
    """Stubs on the two channels. Calls raise ExchangeErrors."""

    def __init__(self, bridge: Bridge, orders: grpc.Channel, market_data: grpc.Channel) -> None:
        self._bridge = bridge
        self._health = health_pb2_grpc.HealthStub(orders)
        self.orders = orders_pb2_grpc.OrdersStub(orders)
        self.internal = internal_pb2_grpc.OrderInternalStub(orders)
        self.market_data = market_data_pb2_grpc.MarketDataStub(market_data)
        # All that changes something; to read twice does no harm.
        self._changing: set[object] = {
            self.orders.Cancel,
            self.orders.CancelAll,
            self.internal.Join,
            self.internal.Recharge,
            self.internal.OpenSession,
            self.internal.CloseSession,
        }

    async def ask(
        self, method: "grpc.UnaryUnaryMultiCallable[T, R]", request: T, call: Call, timeout_s: float = READ_S
    ) -> R:
        """Call for `call`: with its request id and, when somebody was identified, the user's id.

        A read that one instance cannot answer goes to another.
        """
        metadata = [("x-request-id", call.request_id)]
        if call.user_id:
            metadata.append(("x-user-id", str(call.user_id)))
        return await self._bridge.call(
            method,
            request,
            timeout_s=timeout_s,
            metadata=metadata,
            repeat_on=never if method in self._changing else unavailable,
        )

    async def authenticate(self, token: str) -> Caller:
        """Who a bearer token belongs to; raises Unauthenticated."""
        request = internal.AuthenticateRequest(token=token)
        answer = await self._bridge.call(
            self.internal.Authenticate, request, timeout_s=READ_S, repeat_on=unavailable
        )
        return caller_from(answer)

    async def find_key(self, api_key: str) -> SigningKey:
        """A live API key; raises Unauthenticated."""
        request = internal.FindKeyRequest(api_key=api_key)
        answer = await self._bridge.call(
            self.internal.FindKey, request, timeout_s=READ_S, repeat_on=unavailable
        )
        return signing_key_from(answer)

    async def place(self, request: internal.PlaceRequest, request_id: str) -> internal.PlaceResponse:
        """`request_id` is that of the first order; the others' are known here only.

        When the connection is lost, orders with a client_order_id are sent again: those that were placed
        already are then found, not placed twice. Each of the others gets Unavailable as its result.
        """
        give_up_s = trio.current_time() + WRITE_S
        all_named = all(each.order.client_order_id for each in request.orders)
        try:
            return await self._place(request, request_id, WRITE_S, repeatable=all_named)
        except Unavailable as error:
            named = [each for each in request.orders if each.order.client_order_id]
            left_s = give_up_s - trio.current_time()
            if not 0 < len(named) < len(request.orders) or left_s < LEAST_S:
                raise
            unknown = pb.SubmitResult(error=error_to_proto(Unavailable(f"{error.message} {UNKNOWN}")))
        again = internal.PlaceRequest(orders=named)
        answer = iter((await self._place(again, request_id, left_s, repeatable=True)).results)
        results = [next(answer) if each.order.client_order_id else unknown for each in request.orders]
        return internal.PlaceResponse(results=results)

    async def _place(
        self, request: internal.PlaceRequest, request_id: str, timeout_s: float, *, repeatable: bool
    ) -> internal.PlaceResponse:
        return await self._bridge.call(
            self.internal.Place,
            request,
            timeout_s=timeout_s,
            metadata=[("x-request-id", request_id)],
            repeat_on=connection_lost if repeatable else never,
        )

    async def claim_keys(self, claims: Sequence[internal.KeyClaim]) -> Sequence[internal.KeyState]:
        """To claim or settle again does no harm, so what fails goes to another instance."""
        answer = await self._bridge.call(
            self.internal.ClaimKeys,
            internal.ClaimKeysRequest(claims=claims),
            timeout_s=WRITE_S,
            repeat_on=unavailable,
        )
        return answer.states

    async def settle_keys(self, settlements: Sequence[internal.KeySettlement]) -> Sequence[internal.KeyState]:
        answer = await self._bridge.call(
            self.internal.SettleKeys,
            internal.SettleKeysRequest(settlements=settlements),
            timeout_s=WRITE_S,
            repeat_on=unavailable,
        )
        return answer.states

    async def list_markets(self) -> list[Market]:
        answer = await self._bridge.call(
            self.orders.ListMarkets, pb.ListMarketsRequest(), timeout_s=READ_S, repeat_on=unavailable
        )
        return [market_from_proto(market) for market in answer.markets]

    async def keep_orders_awake(self) -> None:
        """For ever: what makes single calls to order-service cheap (see `Bridge.keep_open`)."""
        await self._bridge.keep_open(self._health.Watch, health_pb2.HealthCheckRequest(service=""))

    async def orders_problem(self) -> str:
        """Why order-service would not accept an order now; "" when it would."""
        try:
            answer = await self._bridge.call(
                self._health.Check,
                health_pb2.HealthCheckRequest(service=""),
                timeout_s=PROBE_S,
                repeat_on=unavailable,
            )
        except ExchangeError as error:
            return error.message
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return "order-service says that it is not serving"
        return ""
