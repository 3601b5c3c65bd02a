"""What the engine is told and what it answers, as plain values.

The numbers of the enumerations are those of `proto/exchange/v1/types.proto`; `common.wire` turns
these values into bytes and back. Prices are ticks, quantities lots, money atoms, times microseconds
since the epoch.

`Trade` and `OrderState`, of which every batch makes many, write their `__init__` out: compiled, it is then
a native constructor, and `dataclass` would put one of Python in its place (a fifth of the time). Then
their numbers are machine words, checked when they are set, and the collector looks for nothing in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import Final

from mypy_extensions import i64, mypyc_attr

GENESIS_CHAIN = bytes(32)

# Looked up, because each order needs one.
_TEN_TO: Final[tuple[int, ...]] = tuple(10**scale for scale in range(39))


@mypyc_attr(acyclic=True)
class _Written:
    """With an `__init__` of its own; a copy calls it, because nothing else makes a compiled object."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]  # Whoever is one is a dataclass.
        return type(self), tuple(getattr(self, name) for name in names)


class Side(IntEnum):
    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    LIMIT = 1
    MARKET = 2


class TimeInForce(IntEnum):
    GTC = 1
    IOC = 2
    FOK = 3


class SelfTradePrevention(IntEnum):
    CANCEL_TAKER = 1
    CANCEL_MAKER = 2
    CANCEL_BOTH = 3


class OrderStatus(IntEnum):
    ACCEPTED = 1
    OPEN = 2
    PARTIALLY_FILLED = 3
    FILLED = 4
    CANCELED = 5
    REJECTED = 6
    EXPIRED = 7

    @property
    def live(self) -> bool:
        return self <= OrderStatus.PARTIALLY_FILLED


class Reason(IntEnum):
    NONE = 0
    USER_REQUEST = 1
    SELF_TRADE = 2
    POST_ONLY_WOULD_CROSS = 3
    UNFILLED_REMAINDER = 4
    FOK_NOT_FILLABLE = 5
    HOLD_EXHAUSTED = 6
    MARKET_HALTED = 7
    OPERATOR_SKIP = 8


class MarketStatus(IntEnum):
    ACTIVE = 1
    HALTED = 2


class Liquidity(IntEnum):
    MAKER = 1
    TAKER = 2


@dataclass(slots=True)
class Asset:
    """One unit is 10**scale atoms."""

    asset_id: int
    symbol: str
    scale: int


@dataclass(slots=True)
class Market:
    """The units of a market, its fees in basis points, and its status.

    `tick_atoms` is what one tick adds to the price of one whole base unit, in quote atoms;
    `lot_atoms` is one lot in base atoms.
    """

    market_id: int
    symbol: str
    base: Asset
    quote: Asset
    partition: int
    tick_atoms: int
    lot_atoms: int
    min_notional_atoms: int
    maker_fee_bps: int
    taker_fee_bps: int
    status: MarketStatus = MarketStatus.ACTIVE

    @property
    def atoms_per_tick_lot(self) -> int:
        """Quote atoms in one lot at one tick; exact, which `units.check_market` has seen to."""
        return self.tick_atoms * self.lot_atoms // _TEN_TO[self.base.scale]


# ---- commands: what TX1 wrote -------------------------------------------------------------------


@dataclass(slots=True)
class Place:
    """`hold_atoms` is what TX1 held for it: quote atoms for a buy, base atoms for a sell.

    A market buy has `qty_lots` or `quote_atoms`, the other is 0; `price_ticks` is 0 for MARKET.
    """

    order_id: int
    user_id: int
    market_id: int
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    post_only: bool
    stp: SelfTradePrevention
    price_ticks: int
    qty_lots: int
    quote_atoms: int
    hold_atoms: int
    client_order_id: str = ""


@dataclass(slots=True)
class Cancel:
    order_id: int
    user_id: int


@dataclass(slots=True)
class CancelAll:
    """All live orders of a user in one market, or with `market_id` 0 in the whole partition."""

    user_id: int
    market_id: int


@dataclass(slots=True)
class SetMarket:
    market: Market


@dataclass(slots=True)
class Noop:
    """Changes nothing; `order_id` 0: it concerns no order."""

    order_id: int
    reason: str


Command = Place | Cancel | CancelAll | SetMarket | Noop


@dataclass(slots=True)
class Skipped:
    """A command that an operator had passed over. It is never written: `sequencing.with_skips` makes it."""

    command: Command


@dataclass(slots=True)
class Batch:
    """What one TX1 wrote for one partition; the commands have consecutive sequences."""

    partition: int
    first_sequence: int
    time_us: int
    previous_chain: bytes
    chain: bytes
    commands: Sequence[Command | Skipped]

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + len(self.commands) - 1


# ---- events: what the engine made of a batch ----------------------------------------------------


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class Trade(_Written):
    """Fees are atoms of what each side receives: base for the buyer, quote for the seller."""

    market_id: i64
    trade_id: i64
    sequence: i64
    price_ticks: i64
    qty_lots: i64
    taker_side: Side
    maker_order_id: i64
    taker_order_id: i64
    maker_user_id: i64
    taker_user_id: i64
    maker_fee_atoms: i64
    taker_fee_atoms: i64

    def __init__(
        self,
        market_id: i64,
        trade_id: i64,
        sequence: i64,
        price_ticks: i64,
        qty_lots: i64,
        taker_side: Side,
        maker_order_id: i64,
        taker_order_id: i64,
        maker_user_id: i64,
        taker_user_id: i64,
        maker_fee_atoms: i64,
        taker_fee_atoms: i64,
    ) -> None:
        self.market_id = market_id
        self.trade_id = trade_id
        self.sequence = sequence
        self.price_ticks = price_ticks
        self.qty_lots = qty_lots
        self.taker_side = taker_side
        self.maker_order_id = maker_order_id
        self.taker_order_id = taker_order_id
        self.maker_user_id = maker_user_id
        self.taker_user_id = taker_user_id
        self.maker_fee_atoms = maker_fee_atoms
        self.taker_fee_atoms = taker_fee_atoms


@mypyc_attr(acyclic=True)
@dataclass(slots=True, init=False)
class OrderState(_Written):
    """An order as a batch left it; `released_atoms` is what the batch gave back to its owner."""

    order_id: i64
    user_id: i64
    market_id: i64
    client_order_id: str
    side: Side
    status: OrderStatus
    reason: Reason
    filled_lots: i64
    filled_quote_atoms: i64
    fee_atoms: i64
    held_atoms: i64
    released_atoms: i64
    sequence: i64

    def __init__(
        self,
        order_id: i64,
        user_id: i64,
        market_id: i64,
        client_order_id: str,
        side: Side,
        status: OrderStatus,
        reason: Reason,
        filled_lots: i64,
        filled_quote_atoms: i64,
        fee_atoms: i64,
        held_atoms: i64,
        released_atoms: i64,
        sequence: i64,
    ) -> None:
        self.order_id = order_id
        self.user_id = user_id
        self.market_id = market_id
        self.client_order_id = client_order_id
        self.side = side
        self.status = status
        self.reason = reason
        self.filled_lots = filled_lots
        self.filled_quote_atoms = filled_quote_atoms
        self.fee_atoms = fee_atoms
        self.held_atoms = held_atoms
        self.released_atoms = released_atoms
        self.sequence = sequence


@dataclass(slots=True)
class MarketState:
    market_id: int
    status: MarketStatus
    maker_fee_bps: int
    taker_fee_bps: int
    next_trade_id: int
    last_price_ticks: int


@dataclass(slots=True)
class BookDigest:
    """What a market's book looked like after the batch: `outward.book_digest`."""

    market_id: int
    digest: bytes


@dataclass(slots=True)
class Settlement:
    """All that TX2 needs to settle one batch. Orders and markets stand once each, by id.

    `digests` are there now and then, for every market: other engines must arrive at the same.
    """

    partition: int
    first_sequence: int
    last_sequence: int
    time_us: int
    previous_chain: bytes
    chain: bytes
    engine_version: int
    trades: list[Trade] = field(default_factory=list)
    orders: list[OrderState] = field(default_factory=list)
    markets: list[MarketState] = field(default_factory=list)
    digests: list[BookDigest] = field(default_factory=list)


@dataclass(slots=True)
class BookUpdate:
    """Levels as (price_ticks, qty_lots), best first; in an update, 0 lots removes the level."""

    market_id: int
    full: bool
    sequence: int
    previous: int
    last_trade_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]
    time_us: int


@dataclass(slots=True)
class Applied:
    """What applying one batch gives: the settlement, and the changed levels of each touched market."""

    settlement: Settlement
    books: list[BookUpdate] = field(default_factory=list)


@dataclass(slots=True)
class LiveOrder:
    """A resting order, as a restore reads it and as the engine would write it down.

    `sequence` is its priority within its price. The book holds `qty_lots - filled_lots`.
    """

    order_id: int
    user_id: int
    market_id: int
    client_order_id: str
    side: Side
    price_ticks: int
    qty_lots: int
    filled_lots: int
    filled_quote_atoms: int
    fee_atoms: int
    held_atoms: int
    sequence: int


@dataclass(slots=True)
class Snapshot:
    """The engine's whole state at a watermark. The same state gives the same bytes from here on."""

    partition: int
    sequence: int
    chain: bytes
    time_us: int
    engine_version: int
    markets: list[Market]
    states: list[MarketState]
    orders: list[LiveOrder]
