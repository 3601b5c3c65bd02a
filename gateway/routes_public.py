"""What anybody may ask: markets, books, trades, candles, tickers, the time."""

import time
from typing import ClassVar

from common.core.errors import UnknownSymbol
from common.core.units import time_to_text
from common.shown import Candle, Ticker, Trade, candle_json, ticker_json, trade_json
from common.socket_messages import INTERVALS_S
from exchange.v1 import market_data_pb2 as md
from gateway.calls import Answer, Call, json_answer
from gateway.declaration import BEHIND, Route
from gateway.markets import Markets
from gateway.query import Choice, Number, Query, Text
from gateway.render import book_json, market_json
from gateway.services import Services
from gateway.shapes import Book, Market, Now

MOST = 1000

SYMBOL = Text("symbol", "The market", required=True, example="BTC-USD")
DEPTH = Number("depth", "Levels of each side", 50, MOST)
TRADES = Number("limit", "How many trades", 100, MOST)
CANDLES = Number("limit", "How many candles", 500, MOST)
INTERVAL = Choice("interval", "What a candle covers", INTERVALS_S, "1m")


class PublicRoutes:
    """Handlers; each takes a call and returns its answer or raises an ExchangeError."""

    section: ClassVar = "Market data"

    def __init__(self, services: Services, markets: Markets) -> None:
        self._services = services
        self._markets = markets

    @Route("GET", "/api/v1/markets", "The markets and their units", {200: list[Market]})
    async def markets(self, _: Call, __: Query) -> Answer:
        return json_answer([market_json(market) for market in self._markets.table.by_symbol.values()])

    @Route(
        "GET",
        "/api/v1/orderbook",
        "The order book of a market",
        {200: Book},
        query=(SYMBOL, DEPTH),
        errors=(UnknownSymbol, *BEHIND),
    )
    async def orderbook(self, call: Call, query: Query) -> Answer:
        market = self._markets.table.market(query[SYMBOL])
        request = md.GetBookRequest(symbol=market.symbol, depth=query[DEPTH])
        return json_answer(
            book_json(market, await self._services.ask(self._services.market_data.GetBook, request, call))
        )

    @Route(
        "GET",
        "/api/v1/trades",
        "The last trades of a market, newest first",
        {200: list[Trade]},
        query=(SYMBOL, TRADES),
        errors=(UnknownSymbol, *BEHIND),
    )
    async def trades(self, call: Call, query: Query) -> Answer:
        market = self._markets.table.market(query[SYMBOL])
        request = md.ListTradesRequest(symbol=market.symbol, limit=query[TRADES])
        answer = await self._services.ask(self._services.market_data.ListTrades, request, call)
        return json_answer([trade_json(market, trade) for trade in answer.trades])

    @Route(
        "GET",
        "/api/v1/klines",
        "The last candles of a market, oldest first",
        {200: list[Candle]},
        query=(SYMBOL, INTERVAL, CANDLES),
        errors=(UnknownSymbol, *BEHIND),
    )
    async def klines(self, call: Call, query: Query) -> Answer:
        market = self._markets.table.market(query[SYMBOL])
        request = md.ListCandlesRequest(
            symbol=market.symbol, interval_s=query[INTERVAL], limit=query[CANDLES]
        )
        answer = await self._services.ask(self._services.market_data.ListCandles, request, call)
        return json_answer([candle_json(market, candle) for candle in answer.candles])

    @Route(
        "GET",
        "/api/v1/ticker",
        "The last 24 hours of a market",
        {200: Ticker},
        query=(SYMBOL,),
        errors=(UnknownSymbol, *BEHIND),
    )
    async def ticker(self, call: Call, query: Query) -> Answer:
        market = self._markets.table.market(query[SYMBOL])
        request = md.GetTickerRequest(symbol=market.symbol)
        answer = await self._services.ask(self._services.market_data.GetTicker, request, call)
        return json_answer(
            ticker_json(market, answer, bid_ticks=answer.bid_ticks, ask_ticks=answer.ask_ticks)
        )

    @Route("GET", "/api/v1/time", "The clock of the exchange", {200: Now})
    async def time(self, _: Call, __: Query) -> Answer:
        return json_answer(Now(time_to_text(time.time_ns() // 1000)))
