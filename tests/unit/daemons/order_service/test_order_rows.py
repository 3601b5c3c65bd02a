"""The rows that a COPY is fed, against a reader that knows nothing but the format's description."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from common.core import messages as m
from daemons.order_service import order_rows

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
NAMES = st.text("abcXYZ019._:-", max_size=64)
PLACES = st.builds(
    m.Place,
    order_id=INT64,
    user_id=INT64,
    market_id=INT32,
    price_ticks=INT64,
    qty_lots=INT64,
    quote_atoms=INT64,
    hold_atoms=INT64,
    client_order_id=NAMES,
)
# Bytes of each column, in the order of COLUMNS; 0: a text.
WIDTHS = (8, 8, 4, 4, 8, 0, 2, 2, 2, 1, 2, 8, 8, 8, 8, 8, 2, 8, 8)


def read(data: bytes) -> list[tuple[object, ...]]:
    """The rows of PostgreSQL's binary COPY format, field by field."""
    assert data[:11] == b"PGCOPY\n\xff\r\n\x00"
    assert data[11:19] == bytes(8)
    rows, at = [], 19
    while (columns := struct.unpack_from(">h", data, at)[0]) != -1:
        at += 2
        row: list[object] = []
        for _ in range(columns):
            [length] = struct.unpack_from(">i", data, at)
            at += 4
            row.append(None if length == -1 else data[at : at + length])
            at += max(length, 0)
        rows.append(tuple(row))
    assert at + 2 == len(data)
    return rows


def expected(row: order_rows.OrderRow) -> tuple[object, ...]:
    values: list[object] = []
    for value, width in zip(row, WIDTHS, strict=True):
        if value is None:
            values.append(None)
        elif isinstance(value, str):
            values.append(value.encode())
        else:
            assert isinstance(value, int)
            values.append(value.to_bytes(width, "big", signed=True))
    return tuple(values)


@given(st.lists(st.tuples(PLACES, INT32, INT64, INT64), max_size=4))
def test_packed_rows_say_what_the_plain_ones_say(rows: list[tuple[m.Place, int, int, int]]) -> None:
    packed = order_rows.packed([order_rows.packed_row(*row) for row in rows])
    assert read(packed) == [expected(order_rows.row(*row)) for row in rows]


def test_a_row_has_the_orders_values_in_the_order_of_the_columns() -> None:
    place = m.Place(
        order_id=1,
        user_id=2,
        market_id=3,
        side=m.Side.SELL,
        type=m.OrderType.MARKET,
        time_in_force=m.TimeInForce.FOK,
        post_only=True,
        stp=m.SelfTradePrevention.CANCEL_BOTH,
        price_ticks=11,
        qty_lots=12,
        quote_atoms=13,
        hold_atoms=14,
        client_order_id="name",
    )
    row = dict(zip(order_rows.COLUMNS, order_rows.row(place, 4, 5, 15), strict=True))
    assert row == {
        "order_id": 1,
        "user_id": 2,
        "market_id": 3,
        "partition": 4,
        "sequence": 5,
        "client_order_id": "name",
        "side": 2,
        "type": 2,
        "time_in_force": 3,
        "post_only": True,
        "stp": 3,
        "price_ticks": 11,
        "qty_lots": 12,
        "quote_atoms": 13,
        "hold_atoms": 14,
        "created_us": 15,
        "status": m.OrderStatus.ACCEPTED,
        "held_atoms": 14,
        "updated_us": 15,
    }
