"""What HTTP and the WebSocket show alike, as the JSON of API.md: decimals and ids are strings.

One place for both: a bot reads a trade the same way, wherever it came from. Pure.
"""

from common.core.messages import Asset, Liquidity, Market, Side
from common.core.units import atoms_to_text, price_to_text, qty_to_text, time_to_text
from common.core.views import Candle, Ticker, TradeLike
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import types_pb2 as ty

Json = dict[str, object]


def price_or_none(market: Market, ticks: int) -> str | None:
    """None where there was no price."""
    return price_to_text(market, ticks) if ticks else None


def trade_json(market: Market, trade: TradeLike) -> Json:
    return {
        "trade_id": str(trade.trade_id),
        "symbol": market.symbol,
        "price": price_to_text(market, trade.price_ticks),
        "quantity": qty_to_text(market, trade.qty_lots),
        "taker_side": Side(trade.taker_side).name,
        "time": time_to_text(trade.time_us),
    }


def candle_json(market: Market, candle: Candle | md.Candle) -> Json:
    return {
        "open_time": time_to_text(candle.open_time_us),
        "open": price_to_text(market, candle.open_ticks),
        "high": price_to_text(market, candle.high_ticks),
        "low": price_to_text(market, candle.low_ticks),
        "close": price_to_text(market, candle.close_ticks),
        "volume": qty_to_text(market, candle.volume_lots),
        "quote_volume": atoms_to_text(market.quote, candle.quote_volume_atoms),
        "trades": candle.trades,
    }


def ticker_json(
    market: Market, ticker: Ticker | md.GetTickerResponse, *, bid_ticks: int, ask_ticks: int
) -> Json:
    return {
        "symbol": market.symbol,
        "last": price_or_none(market, ticker.last_ticks),
        "bid": price_or_none(market, bid_ticks),
        "ask": price_or_none(market, ask_ticks),
        "open": price_or_none(market, ticker.open_ticks),
        "high": price_or_none(market, ticker.high_ticks),
        "low": price_or_none(market, ticker.low_ticks),
        "volume": qty_to_text(market, ticker.volume_lots),
        "quote_volume": atoms_to_text(market.quote, ticker.quote_volume_atoms),
        "trades": ticker.trades,
    }


def fill_json(market: Market, fill: ty.Fill) -> Json:
    fee_asset = market.base if fill.fee_asset_id == market.base.asset_id else market.quote
    return {
        "trade_id": str(fill.trade_id),
        "order_id": str(fill.order_id),
        "symbol": market.symbol,
        "side": Side(fill.side).name,
        "price": price_to_text(market, fill.price_ticks),
        "quantity": qty_to_text(market, fill.qty_lots),
        "fee": atoms_to_text(fee_asset, fill.fee_atoms),
        "fee_asset": fee_asset.symbol,
        "liquidity": Liquidity(fill.liquidity).name,
        "time": time_to_text(fill.time_us),
    }


def account_json(asset: Asset, account: ty.Account) -> Json:
    return {
        "asset": asset.symbol,
        "available": atoms_to_text(asset, account.available_atoms),
        "held": atoms_to_text(asset, account.held_atoms),
    }
