"""The language of the WebSocket: what clients say, what they are told, and the channels. Pure.

market-data speaks it (`daemons.market_data.protocol`); the gateway documents it.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from common.core.errors import NotFound, Refused
from common.core.messages import OrderStatus, OrderType, Reason
from common.shown import (
    Account,
    Candle,
    Decimal,
    Error,
    Fill,
    Id,
    Level,
    SideName,
    Symbol,
    Ticker,
    Time,
    Trade,
    one_of,
)

INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "1d": 86_400}
MAX_CHANNELS = 200

RequestId = int | str | None  # Comes back in the answer.


class UnknownChannel(NotFound):
    """There is no such channel."""

    code = "UNKNOWN_CHANNEL"
    remedy = "Take a name from the list of channels; a market's with its symbol."


class TooManySubscriptions(Refused):
    """A connection may hold 200 subscriptions."""

    code = "TOO_MANY_SUBSCRIPTIONS"
    remedy = "Unsubscribe from some, or open another connection."


# ---- what clients say ---------------------------------------------------------------------------


class Subscribe(msgspec.Struct, tag_field="op", tag="subscribe", forbid_unknown_fields=True):
    """All of these channels or, if one of them cannot be, none. Each starts with a snapshot."""

    channels: Annotated[list[str], Meta(min_length=1, examples=[["trades:BTC-USD", "klines:BTC-USD:1m"]])]
    id: RequestId = None


class Unsubscribe(msgspec.Struct, tag_field="op", tag="unsubscribe", forbid_unknown_fields=True):
    """No more of these; those that are not held do not matter."""

    channels: list[str]
    id: RequestId = None


class Auth(msgspec.Struct, tag_field="op", tag="auth", forbid_unknown_fields=True):
    """Who is there, for the private channels. Another user's are left."""

    token: str = ""
    api_key: str = ""
    timestamp: int | str = 0
    signature: str = ""
    id: RequestId = None


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Answered by a pong, in turn with all else."""

    id: RequestId = None


Request = Subscribe | Unsubscribe | Auth | Ping
REQUESTS: tuple[type[msgspec.Struct], ...] = (Subscribe, Unsubscribe, Auth, Ping)


# ---- what they are told -------------------------------------------------------------------------


class Subscribed(msgspec.Struct, tag_field="op", tag="subscribed"):
    """Comes before the first message of these channels."""

    channels: list[str]
    id: RequestId


class Unsubscribed(msgspec.Struct, tag_field="op", tag="unsubscribed"):
    """Nothing more comes of these channels; without an id when the identity has ended."""

    channels: list[str]
    id: RequestId


class Authenticated(msgspec.Struct, tag_field="op", tag="authenticated"):
    """The private channels of this user may be subscribed to."""

    user_id: Id
    id: RequestId


class Pong(msgspec.Struct, tag_field="op", tag="pong"):
    """The answer to a ping."""

    id: RequestId


class Failed(msgspec.Struct, tag_field="op", tag="error"):
    """A request that was refused, or the end of an identity; the connection goes on."""

    error: Error
    id: RequestId


Reply = Subscribed | Unsubscribed | Authenticated | Pong | Failed
REPLIES: tuple[type[msgspec.Struct], ...] = (Subscribed, Unsubscribed, Authenticated, Pong, Failed)


class Depth(msgspec.Struct, gc=False):
    """Levels of a book, best first; in an update those that changed, where quantity "0" removes one."""

    bids: list[Level]
    asks: list[Level]


class OrderUpdate(msgspec.Struct, kw_only=True):
    """An order as a settlement left it; `last_fill` is null if nothing was filled."""

    order_id: Id
    client_order_id: str | None
    symbol: Symbol
    side: SideName
    status: Annotated[str, one_of(OrderStatus)]
    reason: Annotated[str, one_of(Reason)] | None
    filled_quantity: Decimal
    filled_quote: Decimal
    fee: Decimal
    last_fill: Fill | None
    sequence: int
    time: Time


class LiveOrder(OrderUpdate, kw_only=True):
    """A live order in a snapshot: what an update tells, and what it was placed with."""

    type: Annotated[str, one_of(OrderType)]
    price: Decimal | None
    quantity: Decimal | None


@dataclass(frozen=True)
class Channel:
    """One kind of channel: the pattern of its names, and what `data` is in its messages."""

    kind: str
    names: str  # A regular expression.
    example: str
    about: str
    snapshot: object
    update: object
    private: bool = False


CHANNELS = (
    Channel(
        kind="trades", names="trades:[^:]+", example="trades:BTC-USD",
        about="Trades, oldest first.",
        snapshot=list[Trade], update=list[Trade],
    ),
    Channel(
        kind="depth", names="depth:[^:]+", example="depth:BTC-USD",
        about="The book, then what changed of it.",
        snapshot=Depth, update=Depth,
    ),
    Channel(
        kind="ticker", names="ticker:[^:]+", example="ticker:BTC-USD",
        about="The last 24 hours.",
        snapshot=Ticker, update=Ticker,
    ),
    Channel(
        kind="klines", names=f"klines:[^:]+:({'|'.join(INTERVALS_S)})", example="klines:BTC-USD:1m",
        about="Candles, oldest first; the newest is not over yet.",
        snapshot=list[Candle], update=list[Candle],
    ),
    Channel(
        kind="orders", names="orders", example="orders", private=True,
        about="Your live orders, then each one that changed, once that is durable.",
        snapshot=list[LiveOrder], update=OrderUpdate,
    ),
    Channel(
        kind="balances", names="balances", example="balances", private=True,
        about="What you have of each asset, then each one that changed.",
        snapshot=list[Account], update=Account,
    ),
    Channel(
        kind="fills", names="fills", example="fills", private=True,
        about="Your last 100 fills, then each new one.",
        snapshot=list[Fill], update=Fill,
    ),
)  # fmt: skip
PRIVATE = tuple(channel.kind for channel in CHANNELS if channel.private)
