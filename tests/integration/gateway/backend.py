"""Stands in for order-service and market-data, as far as the gateway's edge needs them.

What the real ones answer is tested with the real ones (tests/integration/test_exchange*.py); here it only
matters what reached them, and what the gateway does while they are away or slow.
"""

# ruff: noqa: N802  # gRPC names the methods.

import itertools
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.core.errors import ExchangeError, OrderNotFound, OrderNotLive, Unauthenticated
from common.core.messages import Asset, Market
from common.identity.permissions import ALL, READ
from common.rpc import error_to_proto
from common.rpc_errors import status_of
from common.wire import market_to_proto
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import internal_pb2_grpc, market_data_pb2_grpc, orders_pb2_grpc
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from tests.harness.keys import Keys

USD, BTC, ETH = Asset(1, "USD", 8), Asset(2, "BTC", 8), Asset(3, "ETH", 8)
MARKETS = [
    Market(1, "BTC-USD", BTC, USD, 0, 1_000_000, 1_000, 100_000_000, 10, 20),
    Market(2, "ETH-USD", ETH, USD, 1, 1_000_000, 10_000, 100_000_000, 10, 20),
]
TOKENS = {"alice": 1001, "bob": 1002, "session": 1001}
# User, permissions, networks, secret.
KEYS: dict[str, tuple[int, int, list[str], bytes]] = {
    "ak_alice": (1001, ALL, [], b"a secret"),
    "ak_reader": (1001, READ, [], b"a secret"),
    "ak_elsewhere": (1001, ALL, ["203.0.113.0/24"], b"a secret"),
}
CREATED_US = 1_767_323_045_000_006
FILLED_ORDER_ID, FOREIGN_ORDER_ID = 500, 501


@dataclass
class Seen:
    """What reached the services."""

    places: list[internal.PlaceRequest] = field(default_factory=list)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # Method, metadata.
    look_ups: int = 0

    @property
    def orders(self) -> int:
        return sum(len(place.orders) for place in self.places)


class Backend:
    """Both services on one port, which stays the same over `stop` and `start`."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.keys = Keys()
        self.may_place = threading.Event()  # Cleared: Place waits.
        self.may_place.set()
        self.place_s = 0.0  # How long it takes then.
        self._server: grpc.Server | None = None
        self._port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(16)
        server = grpc.server(self._pool, options=[("grpc.so_reuseport", 0)])
        orders_pb2_grpc.add_OrdersServicer_to_server(_Orders(self.seen), server)
        internal_pb2_grpc.add_OrderInternalServicer_to_server(_Internal(self), server)
        market_data_pb2_grpc.add_MarketDataServicer_to_server(_MarketData(self.seen), server)
        standing = health.HealthServicer()
        standing.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(standing, server)
        self._port = server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self.may_place.set()
            self._server.stop(None).wait()
            self._pool.shutdown()
            self._server = None


@contextmanager
def running_backend() -> Iterator[Backend]:
    backend = Backend()
    try:
        yield backend
    finally:
        backend.stop()


def _refuse(context: grpc.ServicerContext, error: ExchangeError) -> None:
    context.set_trailing_metadata(
        (("error-code", error.code), ("error-bin", error_to_proto(error).SerializeToString()))
    )
    context.abort(status_of(error), error.message)


class _Orders(orders_pb2_grpc.OrdersServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def _note(self, method: str, context: grpc.ServicerContext) -> None:
        self._seen.calls.append((method, {key: str(value) for key, value in context.invocation_metadata()}))

    def ListMarkets(
        self, request: pb.ListMarketsRequest, context: grpc.ServicerContext
    ) -> pb.ListMarketsResponse:
        return pb.ListMarketsResponse(markets=[market_to_proto(market) for market in MARKETS])

    def Await(self, request: pb.AwaitRequest, context: grpc.ServicerContext) -> pb.AwaitResponse:
        self._note("Await", context)
        return pb.AwaitResponse(orders=[_order(one.order_id) for one in request.accepted])

    def GetOrder(self, request: pb.GetOrderRequest, context: grpc.ServicerContext) -> pb.GetOrderResponse:
        self._note("GetOrder", context)
        if request.order_id == FOREIGN_ORDER_ID:
            _refuse(context, OrderNotFound())
        return pb.GetOrderResponse(order=_order(request.order_id))

    def ListOrders(
        self, request: pb.ListOrdersRequest, context: grpc.ServicerContext
    ) -> pb.ListOrdersResponse:
        self._note("ListOrders", context)
        return pb.ListOrdersResponse(orders=[_order(7)], cursor="7" if request.limit == 1 else "")

    def Submit(self, request: pb.SubmitRequest, context: grpc.ServicerContext) -> pb.SubmitResponse:
        raise NotImplementedError("the gateway places orders internally")

    def SubmitBatch(
        self, request: pb.SubmitBatchRequest, context: grpc.ServicerContext
    ) -> pb.SubmitBatchResponse:
        raise NotImplementedError("the gateway places orders internally")

    def SubmitStream(
        self, requests: Iterator[pb.SubmitStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.SubmitStreamResponse]:
        raise NotImplementedError("the gateway places orders internally")

    def Cancel(self, request: pb.CancelRequest, context: grpc.ServicerContext) -> pb.CancelResponse:
        self._note("Cancel", context)
        if request.order_id == FOREIGN_ORDER_ID:
            _refuse(context, OrderNotFound())
        if request.order_id == FILLED_ORDER_ID:
            _refuse(context, OrderNotLive())
        return pb.CancelResponse(order_id=request.order_id, sequence=9)

    def CancelAll(self, request: pb.CancelAllRequest, context: grpc.ServicerContext) -> pb.CancelAllResponse:
        self._note("CancelAll", context)
        return pb.CancelAllResponse(canceling=2)

    def ListFills(self, request: pb.ListFillsRequest, context: grpc.ServicerContext) -> pb.ListFillsResponse:
        self._note("ListFills", context)
        fill = ty.Fill(
            trade_id=3, order_id=7, market_id=1, side=ty.SIDE_BUY, price_ticks=10_000_050, qty_lots=5,
            fee_atoms=10, fee_asset_id=2, liquidity=ty.LIQUIDITY_MAKER, time_us=CREATED_US,
        )  # fmt: skip
        return pb.ListFillsResponse(fills=[fill])

    def ListAccounts(
        self, request: pb.ListAccountsRequest, context: grpc.ServicerContext
    ) -> pb.ListAccountsResponse:
        self._note("ListAccounts", context)
        return pb.ListAccountsResponse(accounts=_accounts())


class _Internal(internal_pb2_grpc.OrderInternalServicer):
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._ids = itertools.count(7_000)
        self._by_client_id: dict[tuple[int, str], int] = {}

    def Authenticate(
        self, request: internal.AuthenticateRequest, context: grpc.ServicerContext
    ) -> internal.AuthenticateResponse:
        self._backend.seen.look_ups += 1
        if request.token not in TOKENS:
            _refuse(context, Unauthenticated())
        return internal.AuthenticateResponse(user_id=TOKENS[request.token], permissions=ALL)

    def FindKey(
        self, request: internal.FindKeyRequest, context: grpc.ServicerContext
    ) -> internal.FindKeyResponse:
        self._backend.seen.look_ups += 1
        if request.api_key not in KEYS:
            _refuse(context, Unauthenticated())
        user_id, permissions, networks, secret = KEYS[request.api_key]
        holder = internal.AuthenticateResponse(
            user_id=user_id, permissions=permissions, api_key=request.api_key, networks=networks
        )
        return internal.FindKeyResponse(holder=holder, kind=1, material=secret)

    def OpenSession(
        self, request: internal.OpenSessionRequest, context: grpc.ServicerContext
    ) -> internal.OpenSessionResponse:
        return internal.OpenSessionResponse(token="session", expires_us=CREATED_US)

    def CloseSession(
        self, request: internal.CloseSessionRequest, context: grpc.ServicerContext
    ) -> internal.CloseSessionResponse:
        self._backend.seen.calls.append(("CloseSession", {"token": request.token}))
        return internal.CloseSessionResponse()

    def Place(self, request: internal.PlaceRequest, context: grpc.ServicerContext) -> internal.PlaceResponse:
        self._backend.seen.places.append(request)
        self._backend.may_place.wait()
        time.sleep(self._backend.place_s)
        return internal.PlaceResponse(
            results=[pb.SubmitResult(accepted=self._accept(one)) for one in request.orders]
        )

    def _accept(self, one: internal.UserOrder) -> pb.Accepted:
        order_id = next(self._ids)
        key = (one.user_id, one.order.client_order_id)
        known = self._by_client_id.setdefault(key, order_id) if key[1] else order_id
        return pb.Accepted(
            order_id=known,
            client_order_id=one.order.client_order_id,
            symbol=one.order.symbol,
            sequence=known,
            created_us=CREATED_US,
            repeated=known != order_id,
        )

    def Join(self, request: internal.JoinRequest, context: grpc.ServicerContext) -> internal.JoinResponse:
        return internal.JoinResponse(user_id=1001, token="alice", accounts=_accounts())

    def Rewind(
        self, request: internal.RewindRequest, context: grpc.ServicerContext
    ) -> internal.RewindResponse:
        raise NotImplementedError("the gateway reads no partition")

    def ReportStop(
        self, request: internal.ReportStopRequest, context: grpc.ServicerContext
    ) -> internal.ReportStopResponse:
        raise NotImplementedError("the gateway reads no partition")

    def ClaimKeys(
        self, request: internal.ClaimKeysRequest, context: grpc.ServicerContext
    ) -> internal.ClaimKeysResponse:
        return internal.ClaimKeysResponse(states=[self._backend.keys.claim(one) for one in request.claims])

    def SettleKeys(
        self, request: internal.SettleKeysRequest, context: grpc.ServicerContext
    ) -> internal.SettleKeysResponse:
        return internal.SettleKeysResponse(
            states=[self._backend.keys.settle(one) for one in request.settlements]
        )

    def Recharge(
        self, request: internal.RechargeRequest, context: grpc.ServicerContext
    ) -> internal.RechargeResponse:
        return internal.RechargeResponse(accounts=_accounts())


class _MarketData(market_data_pb2_grpc.MarketDataServicer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def GetBook(self, request: md.GetBookRequest, context: grpc.ServicerContext) -> md.GetBookResponse:
        levels = [md.Level(price_ticks=10_000_000 - n, qty_lots=n + 1) for n in range(min(request.depth, 3))]
        return md.GetBookResponse(symbol=request.symbol, sequence=12, bids=levels)

    def ListTrades(
        self, request: md.ListTradesRequest, context: grpc.ServicerContext
    ) -> md.ListTradesResponse:
        trade = md.PublicTrade(
            market_id=1, trade_id=3, price_ticks=1, qty_lots=2, taker_side=ty.SIDE_SELL, time_us=CREATED_US
        )
        return md.ListTradesResponse(trades=[trade])

    def StreamBook(
        self, request: md.StreamBookRequest, context: grpc.ServicerContext
    ) -> Iterator[md.StreamBookResponse]:
        raise NotImplementedError("the gateway splices WebSockets instead")

    def StreamTrades(
        self, request: md.StreamTradesRequest, context: grpc.ServicerContext
    ) -> Iterator[md.StreamTradesResponse]:
        raise NotImplementedError("the gateway splices WebSockets instead")

    def ListCandles(
        self, request: md.ListCandlesRequest, context: grpc.ServicerContext
    ) -> md.ListCandlesResponse:
        candle = md.Candle(
            open_time_us=1_767_323_040_000_000, open_ticks=1, high_ticks=4, low_ticks=1, close_ticks=2,
            volume_lots=9, quote_volume_atoms=50, trades=3,
        )  # fmt: skip
        return md.ListCandlesResponse(candles=[candle])

    def GetTicker(self, request: md.GetTickerRequest, context: grpc.ServicerContext) -> md.GetTickerResponse:
        return md.GetTickerResponse(symbol=request.symbol, last_ticks=10_000_000)


def _order(order_id: int) -> pb.Order:
    return pb.Order(
        order_id=order_id, user_id=1001, market_id=1, symbol="BTC-USD", side=ty.SIDE_BUY,
        type=ty.ORDER_TYPE_LIMIT, time_in_force=ty.TIME_IN_FORCE_GTC,
        stp=ty.SELF_TRADE_PREVENTION_CANCEL_TAKER, price_ticks=10_000_050, qty_lots=100, filled_lots=5,
        filled_quote_atoms=50_000_250_00, fee_atoms=10, status=ty.ORDER_STATUS_PARTIALLY_FILLED, sequence=4,
        created_us=CREATED_US, updated_us=CREATED_US,
    )  # fmt: skip


def _accounts() -> list[ty.Account]:
    return [ty.Account(asset_id=1, available_atoms=100_000_000_000_000, held_atoms=50_000_000)]


def main() -> None:
    """For the benchmark: prints its address, and serves until it is killed; a Place takes argv[1] seconds."""
    with running_backend() as backend:
        backend.place_s = float(sys.argv[1])
        print(backend.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
