"""What anybody may ask: markets, books, trades, candles, tickers, the time."""

import time

from common.core.units import time_to_text
from common.shown import candle_json, ticker_json, trade_json
from exchange.v1 import market_data_pb2 as md
from gateway.calls import Answer, Call, json_answer
from gateway.markets import Markets
from gateway.query import Query
from gateway.render import book_json, market_json
from gateway.services import Services

INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400}
MOST = 1000


class PublicRoutes:
    """Handlers; each takes a call and returns its answer or raises an ExchangeError."""

    def __init__(self, services: Services, markets: Markets) -> None:
        self._services = services
        self._markets = markets

    async def markets(self, call: Call) -> Answer:
        Query(call.query)
        return json_answer([market_json(market) for market in self._markets.table.by_symbol.values()])

    async def orderbook(self, call: Call) -> Answer:
        query = Query(call.query, "symbol", "depth")
        depth = query.number("depth", 50, MOST)
        market = self._markets.table.market(query.required("symbol"))
        request = md.GetBookRequest(symbol=market.symbol, depth=depth)
        return json_answer(
            book_json(market, await self._services.ask(self._services.market_data.GetBook, request, call))
        )

    async def trades(self, call: Call) -> Answer:
        query = Query(call.query, "symbol", "limit")
        limit = query.number("limit", 100, MOST)
        market = self._markets.table.market(query.required("symbol"))
        request = md.ListTradesRequest(symbol=market.symbol, limit=limit)
        answer = await self._services.ask(self._services.market_data.ListTrades, request, call)
        return json_answer([trade_json(market, trade) for trade in answer.trades])

    async def klines(self, call: Call) -> Answer:
        query = Query(call.query, "symbol", "interval", "limit")
        limit = query.number("limit", 500, MOST)
        interval_s = query.choice("interval", INTERVALS_S, "1m")
        market = self._markets.table.market(query.required("symbol"))
        request = md.ListCandlesRequest(symbol=market.symbol, interval_s=interval_s, limit=limit)
        answer = await self._services.ask(self._services.market_data.ListCandles, request, call)
        return json_answer([candle_json(market, candle) for candle in answer.candles])

    async def ticker(self, call: Call) -> Answer:
        market = self._markets.table.market(Query(call.query, "symbol").required("symbol"))
        request = md.GetTickerRequest(symbol=market.symbol)
        answer = await self._services.ask(self._services.market_data.GetTicker, request, call)
        return json_answer(
            ticker_json(market, answer, bid_ticks=answer.bid_ticks, ask_ticks=answer.ask_ticks)
        )

    async def time(self, call: Call) -> Answer:
        Query(call.query)
        return json_answer({"time": time_to_text(time.time_ns() // 1000)})
