"""A user's orders and fills as lists: which statement answers which filters. Pure.

Each combination of filters has a statement of its own, and so a plan of its own. What no index serves is
looked for among `pages.SCAN_ROWS` rows, from where the page begins: no page reads a whole history.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import TupleRow

from common.core.messages import OrderStatus, Side
from daemons.order_service.pages import Position
from exchange.v1 import orders_pb2 as pb

ORDER_COLUMNS = """
    order_id, client_order_id, user_id, market_id, side, type, time_in_force, post_only, stp, price_ticks,
    qty_lots, quote_atoms, filled_lots, filled_quote_atoms, fee_atoms, status, reason, sequence,
    created_us, updated_us
"""
FILL_COLUMNS = """
    trade_id, market_id, price_ticks, qty_lots, taker_side, time_us, maker_order_id, taker_order_id,
    maker_fee_atoms, taker_fee_atoms, taker_user_id = %(user)s AS taker
"""
_LIVE = (0, OrderStatus.ACCEPTED, OrderStatus.OPEN, OrderStatus.PARTIALLY_FILLED)


_CREATED, _ORDER_ID = 18, 0  # Places in ORDER_COLUMNS,
_TIME, _MARKET, _TRADE = 5, 1, 0  # and in FILL_COLUMNS.


@dataclass(frozen=True, slots=True)
class Source:
    """A table's rows of one user, newest first; `filters` are looked for among those that `served` finds."""

    columns: str
    table: str
    position: tuple[str, ...]
    places: tuple[int, ...]  # Of the position, in the columns.
    served: Sequence[str]
    filters: Sequence[str]

    @property
    def rows(self) -> str:
        """The first `limit` rows after %(p0)s, %(p1)s, ..., of the `scan` that are looked at."""
        if not self.filters:
            return f"SELECT {self.columns} {self._from()} LIMIT %(limit)s"
        found = f"SELECT {self.columns} FROM (SELECT * {self._from()} LIMIT %(scan)s) scanned"  # noqa: S608
        return f"{found} WHERE {' AND '.join(self.filters)} ORDER BY {self._order()} LIMIT %(limit)s"

    @property
    def end(self) -> str:
        """The position of the last row that is looked at, when there are so many."""
        return f"SELECT {', '.join(self.position)} {self._from()} OFFSET %(scan)s - 1 LIMIT 1"

    def position_of(self, row: TupleRow) -> Position:
        return tuple(row[place] for place in self.places)

    def _from(self) -> str:
        return f"FROM {self.table} WHERE {' AND '.join(self.served)} ORDER BY {self._order()}"

    def _order(self) -> str:
        return ", ".join(f"{name} DESC" for name in self.position)


def orders_source(request: pb.ListOrdersRequest) -> Source:
    """By the time of their acceptance and their id: neither ever changes."""
    served = ["user_id = %(user)s", "(created_us, order_id) < (%(p0)s, %(p1)s)"]
    filters = []
    if request.from_us:
        served.append("created_us >= %(from)s")
    if request.only_live or (request.status and request.status in _LIVE):
        served.append("live")
    if request.client_order_id:  # At most one order.
        served.append("client_order_id = %(client)s")
    if request.symbol:
        filters.append("market_id = %(market)s")
    if request.status:
        filters.append("status = %(status)s")
    if request.side:
        filters.append("side = %(side)s")
    if request.client_order_id:
        served, filters = served + filters, []
    return Source(ORDER_COLUMNS, "orders", ("created_us", "order_id"), (_CREATED, _ORDER_ID), served, filters)


def fills_sources(request: pb.ListFillsRequest) -> list[Source]:
    """One for the trades that the user took, one for those that they made; by time, market and trade."""
    return [_fills_source(request, role) for role in ("taker", "maker")]


def _fills_source(request: pb.ListFillsRequest, role: str) -> Source:
    served = [
        f"{role}_user_id = %(user)s",
        "time_us <= %(p0)s",  # What the index knows of the next line.
        "(time_us, market_id, trade_id) < (%(p0)s, %(p1)s, %(p2)s)",
    ]
    filters = []
    if request.from_us or request.order_id:
        served.append("time_us >= %(from)s")
    if request.symbol:
        filters.append("market_id = %(market)s")
    if request.side:
        filters.append("taker_side = %(side)s" if role == "taker" else "taker_side = %(other_side)s")
    if request.order_id:
        filters.append(f"{role}_order_id = %(order)s")
    position, places = ("time_us", "market_id", "trade_id"), (_TIME, _MARKET, _TRADE)
    return Source(FILL_COLUMNS, "trades", position, places, served, filters)


def other_side(side: int) -> int:
    return {int(Side.BUY): int(Side.SELL), int(Side.SELL): int(Side.BUY)}.get(side, 0)
