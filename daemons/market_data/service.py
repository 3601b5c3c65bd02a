"""The gRPC services: MarketData for the public, MarketDataInternal for the settlers.

The public streams take frames from outboxes like those of WebSocket clients: a slow reader's book is
conflated, and one that is too slow for trades is ended with BUSY.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc.aio

from common.core.errors import Busy, Malformed, Unavailable
from common.core.units import MAX_INT64
from common.core.views import INTERVALS_S, Candle, Level, TradeLike
from common.peers import Peers
from common.tls import Role
from daemons.market_data.channels import Channel, MarketChannels
from daemons.market_data.markets import Markets
from daemons.market_data.outbox import Frame, Outbox
from daemons.market_data.render import DepthBody, TradesBody
from exchange.v1 import internal_pb2, internal_pb2_grpc, market_data_pb2_grpc, types_pb2
from exchange.v1 import market_data_pb2 as md

MOST = 1_000
TAKE_BYTES = 256 << 10

Context = grpc.aio.ServicerContext[object, object]


class MarketDataService(market_data_pb2_grpc.MarketDataServicer):
    """Answers from memory; UNAVAILABLE while that is not whole, which it soon is."""

    def __init__(self, markets: Markets) -> None:
        self._markets = markets

    async def GetBook(self, request: md.GetBookRequest, context: Context) -> md.GetBookResponse:
        depth = self._market(request.symbol).feed.depth
        levels = _limit("depth", request.depth, 50)
        if not depth.synced:
            raise Unavailable("the book is being restored")
        bids, asks = depth.top(levels)
        return md.GetBookResponse(
            symbol=request.symbol, sequence=depth.sequence, bids=_levels(bids), asks=_levels(asks)
        )

    async def ListTrades(self, request: md.ListTradesRequest, context: Context) -> md.ListTradesResponse:
        channels = self._seeded(request.symbol)
        trades = channels.feed.tape.newest(_limit("limit", request.limit, 100))
        return md.ListTradesResponse(trades=[_trade(trade) for trade in trades])

    async def ListCandles(self, request: md.ListCandlesRequest, context: Context) -> md.ListCandlesResponse:
        channels = self._seeded(request.symbol)
        if request.interval_s not in INTERVALS_S:
            known = ", ".join(str(interval) for interval in INTERVALS_S)
            raise Malformed("unknown interval", {"interval_s": f"must be one of {known}"})
        candles = channels.feed.candles[request.interval_s].newest(_limit("limit", request.limit, 500))
        return md.ListCandlesResponse(candles=[_candle(candle) for candle in candles])

    async def GetTicker(self, request: md.GetTickerRequest, context: Context) -> md.GetTickerResponse:
        body = self._seeded(request.symbol).ticker.body()
        return md.GetTickerResponse(
            symbol=request.symbol,
            last_ticks=body.ticker.last_ticks,
            bid_ticks=body.bid_ticks,
            ask_ticks=body.ask_ticks,
            open_ticks=body.ticker.open_ticks,
            high_ticks=body.ticker.high_ticks,
            low_ticks=body.ticker.low_ticks,
            volume_lots=min(body.ticker.volume_lots, MAX_INT64),
            quote_volume_atoms=min(body.ticker.quote_volume_atoms, MAX_INT64),
            trades=body.ticker.trades,
        )

    async def StreamBook(
        self, request: md.StreamBookRequest, context: Context
    ) -> AsyncIterator[md.StreamBookResponse]:
        channel = self._market(request.symbol).depth
        async for frame in _frames(channel):
            assert isinstance(frame.body, DepthBody)
            yield md.StreamBookResponse(
                snapshot=frame.snapshot,
                sequence=frame.sequence,
                previous=frame.previous,
                bids=_levels(frame.body.bids),
                asks=_levels(frame.body.asks),
            )

    async def StreamTrades(
        self, request: md.StreamTradesRequest, context: Context
    ) -> AsyncIterator[md.StreamTradesResponse]:
        channel = self._market(request.symbol).trades
        async for frame in _frames(channel):
            assert isinstance(frame.body, TradesBody)
            yield md.StreamTradesResponse(trades=[_trade(trade) for trade in frame.body.trades])

    def _market(self, symbol: str) -> MarketChannels:
        return self._markets.by_symbol(symbol)

    def _seeded(self, symbol: str) -> MarketChannels:
        channels = self._market(symbol)
        if not channels.feed.seeded:
            raise Unavailable("the history is being loaded")
        return channels


async def _frames(channel: Channel) -> AsyncIterator[Frame]:
    """What the channel sends, from the snapshot on; raises Busy when the caller reads too slowly."""
    outbox = Outbox()
    subscription = channel.join(outbox)
    try:
        while outbox.closed is None:
            items = outbox.take(TAKE_BYTES)
            for item in items:
                assert isinstance(item, Frame)
                yield item
            if not items:
                await outbox.wait()
        raise Busy(outbox.closed[1])
    finally:
        channel.leave(subscription)


class InternalService(internal_pb2_grpc.MarketDataInternalServicer):
    """Believes its callers: on a port that lets only order-service in here."""

    def __init__(self, take: Callable[[Sequence[internal_pb2.Told]], Awaitable[None]]) -> None:
        self._take = take

    async def Tell(self, request: internal_pb2.TellRequest, context: Context) -> internal_pb2.TellResponse:
        await self._take(request.told)
        return internal_pb2.TellResponse()


def register(markets: Markets) -> Callable[[grpc.aio.Server], None]:
    """For `common.rpc.serve_grpc`."""

    def add(server: grpc.aio.Server) -> None:
        market_data_pb2_grpc.add_MarketDataServicer_to_server(MarketDataService(markets), server)

    return add


def register_internal(
    markets: Markets,
    take: Callable[[Sequence[internal_pb2.Told]], Awaitable[None]],
) -> Callable[[grpc.aio.Server], None]:
    """Likewise, and for the gateway what the public port serves; `take` is given what the settlers tell."""

    def add(server: grpc.aio.Server) -> None:
        register(markets)(server)
        internal_pb2_grpc.add_MarketDataInternalServicer_to_server(InternalService(take), server)

    return add


INTERNAL_CALLERS = Peers(
    {Role.GATEWAY: ("/exchange.v1.MarketData/",), Role.ORDER_SERVICE: ("/exchange.v1.MarketDataInternal/",)}
)


def _limit(name: str, asked: int, default: int) -> int:
    if not 0 <= asked <= MOST:
        raise Malformed(f"{name} must be from 1 to {MOST}", {name: "out of range"})
    return asked or default


def _levels(levels: Sequence[Level]) -> list[md.Level]:
    return [md.Level(price_ticks=price, qty_lots=qty) for price, qty in levels]


def _trade(trade: TradeLike) -> md.PublicTrade:
    return md.PublicTrade(
        market_id=trade.market_id,
        trade_id=trade.trade_id,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        taker_side=types_pb2.Side.ValueType(trade.taker_side),
        time_us=trade.time_us,
    )


def _candle(candle: Candle) -> md.Candle:
    return md.Candle(
        open_time_us=candle.open_time_us,
        open_ticks=candle.open_ticks,
        high_ticks=candle.high_ticks,
        low_ticks=candle.low_ticks,
        close_ticks=candle.close_ticks,
        volume_lots=min(candle.volume_lots, MAX_INT64),
        quote_volume_atoms=min(candle.quote_volume_atoms, MAX_INT64),
        trades=candle.trades,
    )
