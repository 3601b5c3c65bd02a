"""Rows of `orders` as TX1 writes them: one by one, or packed for a binary COPY.

The packed form is PostgreSQL's COPY BINARY (its manual, the page on COPY, "Binary Format"): a signature,
flags and the length of an extension; then for each row the number of its columns and each value behind its
length, -1 for NULL; then -1. All of it is big-endian. Packing by hand costs a third of what a driver takes
that looks at each value's type, and nothing has to be awaited for each row.
"""

from collections.abc import Sequence
from functools import cache
from struct import Struct

from common.core.messages import OrderStatus, OrderType, Place, SelfTradePrevention, Side, TimeInForce

COLUMNS = (
    *("order_id", "user_id", "market_id", "partition", "sequence", "client_order_id"),
    *("side", "type", "time_in_force", "post_only", "stp"),
    *("price_ticks", "qty_lots", "quote_atoms", "hold_atoms", "created_us"),
    *("status", "held_atoms", "updated_us"),
)
_NAMES = ", ".join(COLUMNS)
INSERT = f"INSERT INTO orders ({_NAMES}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"  # noqa: S608
COPY = f"COPY orders ({_NAMES}) FROM STDIN (FORMAT BINARY)"

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"

_INT8, _INT4, _INT2, _BOOL = "iq", "ii", "ih", "i?"
_KIND = Struct(">" + _INT2 * 3 + _BOOL + _INT2)
_ACCEPTED = int(OrderStatus.ACCEPTED)

OrderRow = tuple[int | str | None, ...]


def row(place: Place, partition: int, sequence: int, time_us: int) -> OrderRow:
    """One row's values, in the order of `COLUMNS`."""
    return (
        *(place.order_id, place.user_id, place.market_id, partition, sequence, place.client_order_id or None),
        *(int(place.side), int(place.type), int(place.time_in_force), place.post_only, int(place.stp)),
        *(place.price_ticks, place.qty_lots, place.quote_atoms, place.hold_atoms, time_us),
        *(_ACCEPTED, place.hold_atoms, time_us),
    )


def packed_row(place: Place, partition: int, sequence: int, time_us: int) -> bytes:
    """The same row as COPY takes it."""
    name = place.client_order_id.encode()
    return _row_of(len(name)).pack(
        len(COLUMNS),
        *(8, place.order_id, 8, place.user_id, 4, place.market_id, 4, partition, 8, sequence),
        *(len(name) or -1, name),
        _kind(place.side, place.type, place.time_in_force, place.post_only, place.stp),
        *(8, place.price_ticks, 8, place.qty_lots, 8, place.quote_atoms, 8, place.hold_atoms, 8, time_us),
        *(2, _ACCEPTED, 8, place.hold_atoms, 8, time_us),
    )


def packed(rows: Sequence[bytes]) -> bytes:
    """All that a COPY of these packed rows is fed."""
    return b"".join((_HEADER, *rows, _TRAILER))


@cache  # At most one for each length that a client_order_id may have.
def _row_of(name_bytes: int) -> Struct:
    ids = _INT8 * 2 + _INT4 * 2 + _INT8
    return Struct(f">h{ids}i{name_bytes}s{_KIND.size}s{_INT8 * 5}{_INT2}{_INT8 * 2}")


@cache  # All kinds that there are make 48.
def _kind(
    side: Side, type: OrderType, time_in_force: TimeInForce, post_only: bool, stp: SelfTradePrevention
) -> bytes:
    return _KIND.pack(2, side, 2, type, 2, time_in_force, 1, post_only, 2, stp)
