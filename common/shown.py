"""What HTTP and the WebSocket show alike, as the JSON of API.md: decimals and ids are strings.

One place for both: a bot reads a trade the same way, wherever it came from. The structs are what is sent,
and what the API's documents are generated from. Pure.
"""

from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from common.core import views
from common.core.messages import Asset, Liquidity, Market, Side
from common.core.units import atoms_to_text, price_to_text, qty_to_text, time_to_text
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import types_pb2 as ty


def one_of(names: type[IntEnum]) -> Meta:
    """For the documents: the text is one of these names. What is 0 is never shown."""
    return Meta(extra_json_schema={"enum": [each.name for each in names if each.value]})


Decimal = Annotated[str, Meta(pattern=r"^[0-9]+(\.[0-9]+)?$", examples=["60000.00"])]
# Price and quantity.
Level = Annotated[tuple[Decimal, ...], Meta(min_length=2, max_length=2)]
Id = Annotated[str, Meta(pattern="^[0-9]{1,19}$", examples=["1024"])]
Time = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-02T03:04:05.000006Z"])
]
Symbol = Annotated[str, Meta(examples=["BTC-USD"])]
AssetSymbol = Annotated[str, Meta(examples=["BTC"])]
SideName = Annotated[str, one_of(Side)]


class Trade(msgspec.Struct, gc=False):
    """A trade, as everybody sees it."""

    trade_id: Id
    symbol: Symbol
    price: Decimal
    quantity: Decimal
    taker_side: SideName
    time: Time


class Candle(msgspec.Struct, gc=False):
    """The trades of one interval."""

    open_time: Time
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int


class Ticker(msgspec.Struct, gc=False):
    """The last 24 hours of a market; null where there was no price."""

    symbol: Symbol
    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    trades: int


class Fill(msgspec.Struct, gc=False):
    """A trade, as one of its two sides sees it. The fee is taken from what was received."""

    trade_id: Id
    order_id: Id
    symbol: Symbol
    side: SideName
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: AssetSymbol
    liquidity: Annotated[str, one_of(Liquidity)]
    time: Time


class Account(msgspec.Struct, gc=False):
    """What a user has of one asset; held is what live orders may spend."""

    asset: AssetSymbol
    available: Decimal
    held: Decimal


class Error(msgspec.Struct, gc=False):
    """What went wrong: `code` is stable and for programs, `message` for people."""

    code: str
    message: str
    details: dict[str, str]


def price_or_none(market: Market, ticks: int) -> str | None:
    """None where there was no price."""
    return price_to_text(market, ticks) if ticks else None


def trade_json(market: Market, trade: views.TradeLike) -> Trade:
    return Trade(
        trade_id=str(trade.trade_id),
        symbol=market.symbol,
        price=price_to_text(market, trade.price_ticks),
        quantity=qty_to_text(market, trade.qty_lots),
        taker_side=Side(trade.taker_side).name,
        time=time_to_text(trade.time_us),
    )


def candle_json(market: Market, candle: views.Candle | md.Candle) -> Candle:
    return Candle(
        open_time=time_to_text(candle.open_time_us),
        open=price_to_text(market, candle.open_ticks),
        high=price_to_text(market, candle.high_ticks),
        low=price_to_text(market, candle.low_ticks),
        close=price_to_text(market, candle.close_ticks),
        volume=qty_to_text(market, candle.volume_lots),
        quote_volume=atoms_to_text(market.quote, candle.quote_volume_atoms),
        trades=candle.trades,
    )


def ticker_json(
    market: Market, ticker: views.Ticker | md.GetTickerResponse, *, bid_ticks: int, ask_ticks: int
) -> Ticker:
    return Ticker(
        symbol=market.symbol,
        last=price_or_none(market, ticker.last_ticks),
        bid=price_or_none(market, bid_ticks),
        ask=price_or_none(market, ask_ticks),
        open=price_or_none(market, ticker.open_ticks),
        high=price_or_none(market, ticker.high_ticks),
        low=price_or_none(market, ticker.low_ticks),
        volume=qty_to_text(market, ticker.volume_lots),
        quote_volume=atoms_to_text(market.quote, ticker.quote_volume_atoms),
        trades=ticker.trades,
    )


def fill_json(market: Market, fill: ty.Fill) -> Fill:
    fee_asset = market.base if fill.fee_asset_id == market.base.asset_id else market.quote
    return Fill(
        trade_id=str(fill.trade_id),
        order_id=str(fill.order_id),
        symbol=market.symbol,
        side=Side(fill.side).name,
        price=price_to_text(market, fill.price_ticks),
        quantity=qty_to_text(market, fill.qty_lots),
        fee=atoms_to_text(fee_asset, fill.fee_atoms),
        fee_asset=fee_asset.symbol,
        liquidity=Liquidity(fill.liquidity).name,
        time=time_to_text(fill.time_us),
    )


def account_json(asset: Asset, account: ty.Account) -> Account:
    return Account(
        asset=asset.symbol,
        available=atoms_to_text(asset, account.available_atoms),
        held=atoms_to_text(asset, account.held_atoms),
    )
