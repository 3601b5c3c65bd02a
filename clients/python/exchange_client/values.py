"""What the exchange answers, and orders before they are sent: typed values; pure.

Prices, quantities and amounts are Decimals, exact as the exchange wrote them; times are aware datetimes
in UTC; ids are strings. New fields of an answer are ignored, a new order status is UNKNOWN.
"""

from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal, InvalidOperation
from enum import StrEnum
from secrets import token_hex
from typing import Literal

import msgspec

Side = Literal["BUY", "SELL"]
OrderType = Literal["LIMIT", "MARKET"]
TimeInForce = Literal["GTC", "IOC", "FOK"]
SelfTradePrevention = Literal["CANCEL_TAKER", "CANCEL_MAKER", "CANCEL_BOTH"]
Interval = Literal["1m", "5m", "15m", "1h", "1d"]
Amount = Decimal | str | int  # Never a float: 0.1 is none.


class OrderStatus(StrEnum):
    """Where an order stands."""

    ACCEPTED = "ACCEPTED"  # Durable, and not matched yet.
    OPEN = "OPEN"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"  # The exchange has learned one that this client does not know.

    @classmethod
    def _missing_(cls, value: object) -> "OrderStatus":  # noqa: ARG003 - the name is Enum's
        return cls.UNKNOWN

    @property
    def live(self) -> bool:
        """It may still trade."""
        return self in (OrderStatus.ACCEPTED, OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


# ---- orders to place --------------------------------------------------------------------------------


def new_client_order_id() -> str:
    """A name that no other order of this user has: 96 random bits."""
    return f"c-{token_hex(12)}"


class LimitOrder(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="LIMIT"
):
    """Buy or sell at `price` or better. It has its client_order_id from the moment it is made, so it is
    always safe to place the same object again."""

    symbol: str
    side: Side
    price: Amount
    quantity: Amount  # Of base.
    time_in_force: TimeInForce = "GTC"
    post_only: bool = False
    stp: SelfTradePrevention = "CANCEL_TAKER"
    client_order_id: str = msgspec.field(default_factory=new_client_order_id)

    def __post_init__(self) -> None:
        _check_amounts(price=self.price, quantity=self.quantity)


class MarketOrder(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="MARKET"
):
    """Buy or sell at once at the prices that there are; a purchase may name what to spend (`quote_quantity`)
    in place of what to get. Safe to place again, as LimitOrder."""

    symbol: str
    side: Side
    quantity: Amount | None = None
    quote_quantity: Amount | None = None
    stp: SelfTradePrevention = "CANCEL_TAKER"
    client_order_id: str = msgspec.field(default_factory=new_client_order_id)

    def __post_init__(self) -> None:
        if self.quantity is not None:
            _check_amounts(quantity=self.quantity)
        if self.quote_quantity is not None:
            _check_amounts(quote_quantity=self.quote_quantity)


NewOrder = LimitOrder | MarketOrder


def _check_amounts(**amounts: object) -> None:
    """Raises TypeError for a float, ValueError for what is no finite number."""
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, Decimal | str | int):
            raise TypeError(f"{name} must be a Decimal, a string or a whole number, not {amount!r}")
        try:
            finite = Decimal(amount).is_finite()
        except InvalidOperation:
            finite = False
        if not finite:
            raise ValueError(f"{name} must be a number, not {amount!r}")


def amount_text(amount: Amount) -> str:
    """As the exchange reads it: plain digits, no exponent."""
    return format(Decimal(amount), "f")


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC with microseconds. Raises ValueError for a time without a zone."""
    if time.tzinfo is None:
        raise ValueError(f"a time needs a zone: {time}")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# ---- answers ----------------------------------------------------------------------------------------


class Accepted(msgspec.Struct, frozen=True):
    """The exchange has the order, durably. What became of it: `Exchange.order`, or the stream."""

    order_id: str
    symbol: str
    sequence: int
    created_at: datetime
    status: OrderStatus = OrderStatus.ACCEPTED
    client_order_id: str | None = None
    repeated: bool = False  # It had been accepted before, under the same client_order_id.


class Canceling(msgspec.Struct, frozen=True):
    """The cancel is durable; the order ends, unless it is filled before."""

    order_id: str
    sequence: int


class Order(msgspec.Struct, frozen=True):
    """An order as it stands. `fee` is in `fee_asset`: base for a buyer, quote for a seller."""

    order_id: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    status: OrderStatus
    filled_quantity: Decimal
    filled_quote: Decimal
    fee: Decimal
    created_at: datetime
    updated_at: datetime
    client_order_id: str | None = None
    price: Decimal | None = None  # None: a MARKET order.
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    post_only: bool = False
    stp: str | None = None
    fee_asset: str | None = None
    reason: str | None = None  # Why it ended without being filled.
    sequence: int = 0


class Fill(msgspec.Struct, frozen=True):
    """One trade from the side of one order. trade_id counts within a market."""

    trade_id: str
    order_id: str
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_asset: str
    liquidity: Literal["MAKER", "TAKER"]
    time: datetime


class Account(msgspec.Struct, frozen=True):
    """What a user has of one asset."""

    asset: str
    available: Decimal
    held: Decimal  # By live orders.


class Market(msgspec.Struct, frozen=True):
    """A market and its units; fees in hundredths of a percent."""

    symbol: str
    base: str
    quote: str
    tick_size: Decimal
    lot_size: Decimal
    min_notional: Decimal
    maker_fee_bps: int
    taker_fee_bps: int
    status: str  # ACTIVE, or HALTED: takes cancels only.

    def price(self, value: Decimal, rounding: str = ROUND_DOWN) -> Decimal:
        """The nearest multiple of the tick in that direction (one of decimal's)."""
        return (value / self.tick_size).to_integral_value(rounding) * self.tick_size

    def quantity(self, value: Decimal, rounding: str = ROUND_DOWN) -> Decimal:
        """The same of the lot."""
        return (value / self.lot_size).to_integral_value(rounding) * self.lot_size


class Level(msgspec.Struct, frozen=True, array_like=True):
    """A price, and the quantity of all orders there."""

    price: Decimal
    quantity: Decimal


class BookSnapshot(msgspec.Struct, frozen=True):
    """The best levels of a book, best first."""

    symbol: str
    sequence: int
    bids: list[Level]
    asks: list[Level]


class Trade(msgspec.Struct, frozen=True):
    """One trade, as everybody sees it."""

    trade_id: str
    symbol: str
    price: Decimal
    quantity: Decimal
    taker_side: Side
    time: datetime


class Kline(msgspec.Struct, frozen=True):
    """A candle: the trades of one interval."""

    open_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int


class Ticker(msgspec.Struct, frozen=True):
    """The last 24 hours; None where there was no price."""

    symbol: str
    last: Decimal | None
    bid: Decimal | None
    ask: Decimal | None
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    trades: int


class Joined(msgspec.Struct, frozen=True):
    """A new user of a local exchange, with test money. Its repr shows no secret."""

    user_id: str
    token: str
    balances: list[Account]
    api_key: str | None = None
    api_secret: str | None = None

    def __repr__(self) -> str:
        return f"Joined(user_id={self.user_id!r})"
