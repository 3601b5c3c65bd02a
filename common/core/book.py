"""One market as the engine knows it: both sides with their resting orders, and who owns what.

Finding a user's orders costs a step for each. A user whose last order has left stays known until half of the
users have none.
"""

from typing import Final

from common.core.levels import BookSide, Order, Owner
from common.core.messages import Market, MarketStatus, OrderStatus, Side

_FORGET_ABOVE = 64

# Reading an enumeration's member through its class costs more than a dict look-up; these are hot.
_BUY: Final = Side.BUY
_PARTIALLY_FILLED: Final = OrderStatus.PARTIALLY_FILLED


class Book:
    """One market as the engine knows it: its units, fees, status, numbering and both sides.

    `sequence` is the last sequence of the batch that last changed the levels; `in_batch` tells that
    the batch under way may change them; `fresh` until the book has been announced for the first time.
    """

    __slots__ = (
        "_idle",
        "_owners",
        "asks",
        "atoms_per_tick_lot",
        "bids",
        "fresh",
        "in_batch",
        "last_price_ticks",
        "lot_atoms",
        "maker_fee_bps",
        "market",
        "market_id",
        "next_trade_id",
        "sequence",
        "status",
        "taker_fee_bps",
    )

    def __init__(self, market: Market) -> None:
        self.market = market
        self.market_id = market.market_id
        self.lot_atoms = market.lot_atoms
        self.atoms_per_tick_lot = market.atoms_per_tick_lot
        self.maker_fee_bps = market.maker_fee_bps
        self.taker_fee_bps = market.taker_fee_bps
        self.status: MarketStatus = market.status
        self.next_trade_id = 1
        self.last_price_ticks = 0
        self.sequence = 0
        self.fresh = True
        self.in_batch = False
        self.bids = BookSide(-1)
        self.asks = BookSide(1)
        self._owners: dict[int, Owner] = {}  # By user id.
        self._idle = 0  # Those of them without orders.

    def surplus_atoms(self, order: Order) -> int:
        """What the order holds beyond what it needs for what it has left, at its own price."""
        if order.side is _BUY:
            return order.held_atoms - order.left_lots * order.price_ticks * self.atoms_per_tick_lot
        return order.held_atoms - order.left_lots * self.lot_atoms

    def rest(self, order: Order, surplus_atoms: int) -> None:
        """The order joins its queue and holds exactly what it needs; its surplus is released."""
        if surplus_atoms != 0:
            assert surplus_atoms > 0, "a resting order is fully held"
            order.held_atoms -= surplus_atoms
            order.released_atoms += surplus_atoms
        if order.filled_lots != 0:
            order.status = _PARTIALLY_FILLED
        (self.bids if order.side is _BUY else self.asks).append(order)
        owner = self._owners.get(order.user_id)
        if owner is None:
            owner = self._owners[order.user_id] = Owner()
        else:
            before = owner.newest
            if before is None:
                self._idle -= 1
            else:
                before.user_previous = order
                order.user_next = before
        owner.newest = order
        order.owner = owner

    def remove(self, order: Order) -> None:
        """Take a resting order out of the book."""
        (self.bids if order.side is _BUY else self.asks).remove(order)
        owner, before, after = order.owner, order.user_previous, order.user_next
        assert owner is not None
        if before is None:
            owner.newest = after
        else:
            before.user_next = after
        if after is not None:
            after.user_previous = before
        elif before is None:
            self._idle += 1
            if self._idle > _FORGET_ABOVE and 2 * self._idle > len(self._owners):
                self._forget_idle()
        order.owner = order.user_previous = order.user_next = None

    def _forget_idle(self) -> None:
        self._owners = {user: owner for user, owner in self._owners.items() if owner.newest is not None}
        self._idle = 0

    def orders_of(self, user_id: int) -> list[Order]:
        """The user's resting orders, the one that rested last first."""
        found: list[Order] = []
        owner = self._owners.get(user_id)
        order = None if owner is None else owner.newest
        while order is not None:
            found.append(order)
            order = order.user_next
        return found

    def has_orders_of(self, user_id: int) -> bool:
        owner = self._owners.get(user_id)
        return owner is not None and owner.newest is not None
