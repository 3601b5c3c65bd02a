"""What one TX1 is made of, and what it answers. Plain values, no I/O."""

from dataclasses import dataclass

from common.core.errors import ExchangeError
from common.core.messages import OrderType, SelfTradePrevention, Side, TimeInForce


@dataclass(slots=True)
class NewOrder:
    """An order as its user sent it, in ticks, lots and atoms, before anything is known about it."""

    user_id: int
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    stp: SelfTradePrevention
    price_ticks: int
    qty_lots: int
    quote_atoms: int
    client_order_id: str = ""


@dataclass(slots=True)
class CancelOrder:
    user_id: int
    order_id: int
    idempotency_key: str = ""  # Claimed for this user: under it, it is done once.


@dataclass(slots=True)
class CancelAllOrders:
    user_id: int
    symbol: str  # Empty: every market.
    idempotency_key: str = ""


Request = NewOrder | CancelOrder | CancelAllOrders


@dataclass(slots=True)
class Accepted:
    """`repeated`: this client_order_id was accepted before, and this is that order."""

    order_id: int
    client_order_id: str
    symbol: str
    sequence: int
    created_us: int
    repeated: bool = False


@dataclass(slots=True)
class CancelAccepted:
    order_id: int
    sequence: int


@dataclass(slots=True)
class Canceling:
    orders: int


Answer = Accepted | CancelAccepted | Canceling | ExchangeError
