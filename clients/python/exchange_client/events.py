"""What a stream tells, as values, and how they are read from its messages; pure.

`snapshot` True: the event replaces what was known of its channel. Lists are oldest first, levels best
first, live orders newest first. Events go through msgspec.json and back: `decode(encode(event), type=Event)`.
"""

from datetime import datetime
from decimal import Decimal
from typing import TypedDict, TypeVar

import msgspec

from exchange_client.errors import ProtocolError
from exchange_client.values import (
    Account,
    Fill,
    Kline,
    Level,
    Order,
    OrderStatus,
    OrderType,
    Side,
    Ticker,
    Trade,
)

T = TypeVar("T")

PRIVATE = ("orders", "fills", "balances")


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What all events have: their channel, and its place there on this connection."""

    channel: str
    snapshot: bool
    sequence: int
    previous: int


class DepthEvent(Told, frozen=True, tag="depth", kw_only=True):
    """The whole book, or the levels that changed; quantity 0: the level is gone."""

    symbol: str
    bids: list[Level]
    asks: list[Level]


class TradesEvent(Told, frozen=True, tag="trades", kw_only=True):
    """The last hundred, or those that happened since."""

    symbol: str
    trades: list[Trade]


class TickerEvent(Told, frozen=True, tag="ticker", kw_only=True):
    """The last 24 hours, whole each time."""

    symbol: str
    ticker: Ticker


class KlinesEvent(Told, frozen=True, tag="klines", kw_only=True):
    """Candles; an update has those that changed, whole."""

    symbol: str
    interval: str
    klines: list[Kline]


class OrderUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a settlement left it. An update has no type, price and quantity: they never change."""

    order_id: str
    symbol: str
    side: Side
    status: OrderStatus
    filled_quantity: Decimal
    filled_quote: Decimal
    fee: Decimal
    time: datetime
    client_order_id: str | None = None
    reason: str | None = None
    last_fill: Fill | None = None
    type: OrderType | None = None
    price: Decimal | None = None
    quantity: Decimal | None = None
    sequence: int = 0

    @classmethod
    def of(cls, order: Order) -> "OrderUpdate":
        """The same from an answer over HTTP."""
        return cls(
            order_id=order.order_id,
            symbol=order.symbol,
            side=order.side,
            status=order.status,
            filled_quantity=order.filled_quantity,
            filled_quote=order.filled_quote,
            fee=order.fee,
            time=order.updated_at,
            client_order_id=order.client_order_id,
            reason=order.reason,
            type=order.type,
            price=order.price,
            quantity=order.quantity,
            sequence=order.sequence,
        )


class OrdersEvent(Told, frozen=True, tag="orders", kw_only=True):
    """All live orders, or one order that changed, or those that ended while the stream was interrupted."""

    orders: list[OrderUpdate]


class FillsEvent(Told, frozen=True, tag="fills", kw_only=True):
    """The last hundred, then each once, also those that happened while the stream was interrupted."""

    fills: list[Fill]


class BalancesEvent(Told, frozen=True, tag="balances", kw_only=True):
    """All accounts, or one that changed."""

    balances: list[Account]


Event = DepthEvent | TradesEvent | TickerEvent | KlinesEvent | OrdersEvent | FillsEvent | BalancesEvent


class Message(msgspec.Struct):
    """Anything that the server says; `channel` is empty for an answer to a request."""

    channel: str = ""
    type: str = ""
    sequence: int = 0
    previous: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")
    op: str = ""
    id: int | str | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")
    channels: list[str] = []


class _Told(TypedDict):
    channel: str
    snapshot: bool
    sequence: int
    previous: int


class _Levels(msgspec.Struct):
    bids: list[Level]
    asks: list[Level]


_message = msgspec.json.Decoder(Message)


def read_message(text: str) -> Message:
    """Raises ProtocolError."""
    try:
        return _message.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ProtocolError(f"a message of the stream cannot be read: {error}") from error


def read_event(message: Message) -> Event:
    """The event in a message of a channel; raises ProtocolError."""
    told = _Told(
        channel=message.channel,
        snapshot=message.type == "snapshot",
        sequence=message.sequence,
        previous=message.previous,
    )
    try:
        return _event(message.channel.split(":"), message.data, told)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"a message of {message.channel} cannot be read: {error}") from error


def _event(name: list[str], data: msgspec.Raw, told: _Told) -> Event:
    match name:
        case ["depth", symbol]:
            levels = _read(data, _Levels)
            return DepthEvent(symbol=symbol, bids=levels.bids, asks=levels.asks, **told)
        case ["trades", symbol]:
            return TradesEvent(symbol=symbol, trades=_read(data, list[Trade]), **told)
        case ["ticker", symbol]:
            return TickerEvent(symbol=symbol, ticker=_read(data, Ticker), **told)
        case ["klines", symbol, interval]:
            return KlinesEvent(symbol=symbol, interval=interval, klines=_read(data, list[Kline]), **told)
        case ["orders"]:
            return OrdersEvent(orders=_one_or_all(data, OrderUpdate), **told)
        case ["fills"]:
            return FillsEvent(fills=_one_or_all(data, Fill)[::-1], **told)
        case ["balances"]:
            return BalancesEvent(balances=_one_or_all(data, Account), **told)
    raise ProtocolError(f"there is no channel {':'.join(name)!r}")


def _read(data: msgspec.Raw, type_: type[T]) -> T:
    return msgspec.json.decode(data, type=type_)


def _one_or_all(data: msgspec.Raw, type_: type[T]) -> list[T]:
    """Private channels: a list in a snapshot, one object in an update."""
    if bytes(data).startswith(b"["):
        return msgspec.json.decode(data, type=list[type_])  # type: ignore[valid-type]
    return [_read(data, type_)]
