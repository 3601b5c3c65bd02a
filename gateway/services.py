"""The services behind the gateway, as the routes use them: bridged calls with deadlines and identity."""

from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.core.errors import ExchangeError
from common.core.messages import Market
from common.wire import market_from_proto
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc, market_data_pb2_grpc, orders_pb2_grpc
from exchange.v1 import orders_pb2 as pb
from gateway.bridge import Bridge
from gateway.calls import Call

T = TypeVar("T")
R = TypeVar("R")

READ_S = 3.0  # Deadline of a query.
WRITE_S = 5.0  # Deadline of a call that waits for TX1; longer than its database's failover of a session.
PROBE_S = 1.0  # Deadline of a readiness probe.


class Services:
    """Stubs on the two channels. Calls raise ExchangeErrors."""

    def __init__(self, bridge: Bridge, orders: grpc.Channel, market_data: grpc.Channel) -> None:
        self._bridge = bridge
        self._health = health_pb2_grpc.HealthStub(orders)
        self.orders = orders_pb2_grpc.OrdersStub(orders)
        self.internal = internal_pb2_grpc.OrderInternalStub(orders)
        self.market_data = market_data_pb2_grpc.MarketDataStub(market_data)

    async def ask(
        self, method: "grpc.UnaryUnaryMultiCallable[T, R]", request: T, call: Call, timeout_s: float = READ_S
    ) -> R:
        """Call for `call`: with its request id and, when somebody was identified, the user's id."""
        metadata = [("x-request-id", call.request_id)]
        if call.user_id:
            metadata.append(("x-user-id", str(call.user_id)))
        return await self._bridge.call(method, request, timeout_s=timeout_s, metadata=metadata)

    async def authenticate(self, token: str) -> int:
        """The user of a bearer token; raises Unauthenticated."""
        request = internal.AuthenticateRequest(token=token)
        answer = await self._bridge.call(self.internal.Authenticate, request, timeout_s=READ_S)
        assert answer.user_id > 0
        return answer.user_id

    async def place(self, request: internal.PlaceRequest, request_id: str) -> internal.PlaceResponse:
        """`request_id` is that of the first order; the others' are known here only."""
        metadata = [("x-request-id", request_id)]
        return await self._bridge.call(self.internal.Place, request, timeout_s=WRITE_S, metadata=metadata)

    async def list_markets(self) -> list[Market]:
        answer = await self._bridge.call(
            self.orders.ListMarkets, pb.ListMarketsRequest(), timeout_s=READ_S, metadata=()
        )
        return [market_from_proto(market) for market in answer.markets]

    async def keep_orders_awake(self) -> None:
        """For ever: what makes single calls to order-service cheap (see `Bridge.keep_open`)."""
        await self._bridge.keep_open(self._health.Watch, health_pb2.HealthCheckRequest(service=""))

    async def orders_problem(self) -> str:
        """Why order-service would not accept an order now; "" when it would."""
        try:
            answer = await self._bridge.call(
                self._health.Check, health_pb2.HealthCheckRequest(service=""), timeout_s=PROBE_S
            )
        except ExchangeError as error:
            return error.message
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            return "order-service says that it is not serving"
        return ""
