"""The JSON of the answers, as types: what is encoded, and what the documents are generated from.

What the WebSocket shows too is in `common.shown`. Decimals and ids are strings.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from common.core.messages import (
    MarketStatus,
    OrderStatus,
    OrderType,
    Reason,
    SelfTradePrevention,
    TimeInForce,
)
from common.identity.permissions import Name
from common.shown import (
    Account,
    AssetSymbol,
    Decimal,
    Error,
    Fill,
    Id,
    Level,
    SideName,
    Symbol,
    Time,
    one_of,
)

ClientOrderId = Annotated[str, Meta(examples=["my-1"])]


class Failed(msgspec.Struct, gc=False):
    """The answer to a request that failed, and the place of an order that failed in a batch's."""

    error: Error


class Market(msgspec.Struct, gc=False):
    """A market and its units: prices are multiples of `tick_size`, quantities of `lot_size`."""

    symbol: Symbol
    base: AssetSymbol
    quote: AssetSymbol
    tick_size: Decimal
    lot_size: Decimal
    min_notional: Decimal
    maker_fee_bps: int
    taker_fee_bps: int
    status: Annotated[str, one_of(MarketStatus)]


class Book(msgspec.Struct, gc=False):
    """Levels of price and quantity, best first."""

    symbol: Symbol
    sequence: int
    bids: list[Level]
    asks: list[Level]


class Accepted(msgspec.Struct, gc=False):
    """An order that is durable. A struct, since a batch has a thousand of them."""

    order_id: Id
    client_order_id: ClientOrderId | None
    symbol: Symbol
    sequence: int
    status: Literal["ACCEPTED"]
    created_at: Time


class Order(msgspec.Struct, gc=False):
    """An order as it stands; null for what it was placed without."""

    order_id: Id
    client_order_id: ClientOrderId | None
    symbol: Symbol
    side: SideName
    type: Annotated[str, one_of(OrderType)]
    time_in_force: Annotated[str, one_of(TimeInForce)]
    post_only: bool
    stp: Annotated[str, one_of(SelfTradePrevention)]
    price: Decimal | None
    quantity: Decimal | None
    quote_quantity: Decimal | None
    filled_quantity: Decimal
    filled_quote: Decimal
    fee: Decimal
    fee_asset: AssetSymbol
    status: Annotated[str, one_of(OrderStatus)]
    reason: Annotated[str, one_of(Reason)] | None
    sequence: int
    created_at: Time
    updated_at: Time


class BatchResults(msgspec.Struct, gc=False):
    """What became of each order, in the order sent: an Accepted (or the Order, when settled), or a Failed."""

    # msgspec cannot decode this union, but it encodes it, and nobody decodes it here.
    results: Annotated[
        list[Any],
        Meta(
            extra_json_schema={
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Accepted"},
                        {"$ref": "#/components/schemas/Order"},
                        {"$ref": "#/components/schemas/Failed"},
                    ]
                }
            }
        ),
    ]


class Orders(msgspec.Struct, gc=False):
    """A page of orders; `cursor` asks for the next one, null on the last."""

    orders: list[Order]
    cursor: str | None


class Fills(msgspec.Struct, gc=False):
    """A page of fills; `cursor` asks for the next one, null on the last."""

    fills: list[Fill]
    cursor: str | None


class Canceling(msgspec.Struct, gc=False):
    """A cancel that is durable: the order ends when the engine gets to it."""

    order_id: Id
    sequence: int


class CancelingAll(msgspec.Struct, gc=False):
    """How many orders are being canceled."""

    canceling: int


class Now(msgspec.Struct, gc=False):
    """The clock of the exchange."""

    time: Time


class Balances(msgspec.Struct, gc=False):
    """The accounts after a deposit."""

    balances: list[Account]


class SessionOpened(msgspec.Struct, gc=False):
    """A session; its token is shown here and never again."""

    token: str
    expires_at: Time
    permissions: list[Name]


class SessionEnded(msgspec.Struct, gc=False):
    """The session has ended."""

    status: Literal["ENDED"]


class Joined(msgspec.Struct, gc=False):
    """A new test user; token and secret are shown here and never again."""

    user_id: Id
    token: str
    api_key: str | None
    api_secret: str | None
    balances: list[Account]


class Alive(msgspec.Struct):
    """It answers."""

    alive: bool


class Part(msgspec.Struct):
    """What a part last said of itself."""

    ok: bool
    detail: str


class Readiness(msgspec.Struct):
    """Whether an order would be accepted now, and which part stands in its way."""

    ready: bool
    parts: dict[str, Part]
