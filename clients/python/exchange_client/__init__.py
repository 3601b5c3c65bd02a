"""A client of the exchange for bots: HTTP that repeats what is safe, a stream that never hides a gap.

    async with Exchange("http://127.0.0.1:8100", Token(token)) as exchange:
        await exchange.place(LimitOrder(symbol="BTC-USD", side="BUY", price="60000", quantity="0.001"))

On asyncio and on Trio, through anyio. It shares no code with the exchange. Read in this order:

    exchange       what can be asked and done, a method each
    values         what comes back, and the orders to place
    errors         what can go wrong, one small tree
    patience       what is repeated, and how long
    http           one request: signed (credentials) by the exchange's time (clock)
    batches        many orders in one request; pages: long lists
    stream         one WebSocket that comes back by itself
      session        one connection of it (websocket: wsproto over anyio)
      channel        does a message follow the last one; book: the local order book
      missed         what happened on private channels meanwhile
      subscription   a reader's bounded buffer; events: what is in it
    grpc_orders    orders over gRPC, for asyncio alone; not imported here (grpc_types, grpc_values)
"""

from exchange_client.book import OrderBook
from exchange_client.credentials import Credentials, Ed25519Key, HmacKey, Token
from exchange_client.errors import (
    BadRequest,
    Busy,
    Conflict,
    DuplicateClientOrderId,
    ExchangeError,
    Forbidden,
    Impossible,
    InsufficientFunds,
    InvalidPrice,
    InvalidQuantity,
    MarketHalted,
    NoAnswer,
    NotFound,
    NotionalTooSmall,
    NotSent,
    OrderNotFound,
    OrderNotLive,
    OutOfSync,
    ProtocolError,
    RateLimited,
    Refusal,
    SlowConsumer,
    Unauthenticated,
    Unavailable,
    UnknownSymbol,
)
from exchange_client.events import (
    BalancesEvent,
    DepthEvent,
    Event,
    FillsEvent,
    KlinesEvent,
    OrdersEvent,
    OrderUpdate,
    TickerEvent,
    TradesEvent,
)
from exchange_client.exchange import Exchange
from exchange_client.patience import Patience
from exchange_client.stream import Stream
from exchange_client.subscription import Subscription
from exchange_client.values import (
    Accepted,
    Account,
    BookSnapshot,
    Canceling,
    Fill,
    Joined,
    Kline,
    Level,
    LimitOrder,
    Market,
    MarketOrder,
    NewOrder,
    Order,
    OrderStatus,
    Side,
    Ticker,
    Trade,
    new_client_order_id,
)

__all__ = [
    "Accepted",
    "Account",
    "BadRequest",
    "BalancesEvent",
    "BookSnapshot",
    "Busy",
    "Canceling",
    "Conflict",
    "Credentials",
    "DepthEvent",
    "DuplicateClientOrderId",
    "Ed25519Key",
    "Event",
    "Exchange",
    "ExchangeError",
    "Fill",
    "FillsEvent",
    "Forbidden",
    "HmacKey",
    "Impossible",
    "InsufficientFunds",
    "InvalidPrice",
    "InvalidQuantity",
    "Joined",
    "Kline",
    "KlinesEvent",
    "Level",
    "LimitOrder",
    "Market",
    "MarketHalted",
    "MarketOrder",
    "NewOrder",
    "NoAnswer",
    "NotFound",
    "NotSent",
    "NotionalTooSmall",
    "Order",
    "OrderBook",
    "OrderNotFound",
    "OrderNotLive",
    "OrderStatus",
    "OrderUpdate",
    "OrdersEvent",
    "OutOfSync",
    "Patience",
    "ProtocolError",
    "RateLimited",
    "Refusal",
    "Side",
    "SlowConsumer",
    "Stream",
    "Subscription",
    "Ticker",
    "TickerEvent",
    "Token",
    "Trade",
    "TradesEvent",
    "Unauthenticated",
    "Unavailable",
    "UnknownSymbol",
    "new_client_order_id",
]
