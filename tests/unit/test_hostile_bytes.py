"""Every parser that meets bytes from outside: a value comes out, or the parser's own error, and nothing else.

The bytes are of three kinds: any, those of the right language (JSON, protobuf, HTTP headers), and right ones
that were damaged. What the servers do with such bytes: tests/integration/end_to_end/test_hostile_bytes.py.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.core.errors import ExchangeError
from common.core.messages import Asset, Market
from common.identity.networks import check_address, read_networks
from common.identity.signing import read_public_key, read_signature
from daemons.market_data import protocol
from gateway.app import every_route
from gateway.calls import Call
from gateway.idempotency import read_key
from gateway.limits import orders_in
from gateway.markets import MarketTable
from gateway.peek import Head
from gateway.query import Query
from gateway.validation import read_batch, read_nothing, read_order
from tests.unit.common.test_wire_bytes import SETTLEMENT, SETTLEMENT_BYTES, UPDATES, UPDATES_HEAD

QUICK = settings(max_examples=60)

ANY = st.binary(max_size=200)
TEXTS = st.text(max_size=40)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSONS = st.recursive(SCALARS, lambda of: st.lists(of, max_size=4) | st.dictionaries(TEXTS, of, max_size=4))

ORDER: dict[str, object] = {
    "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "post_only": True,
    "price": "60000.00", "quantity": 0.001, "client_order_id": "a-1", "stp": "CANCEL_MAKER",
}  # fmt: skip
AMOUNTS = st.sampled_from(["1e5", "-0", "0x1", "１", "1_0", "9" * 400, "1." + "0" * 400, 1e308, -1, "NaN"])
# An order some of whose fields are something else.
ORDERS = st.dictionaries(
    st.sampled_from([*ORDER, "quote_quantity", "user_id"]), JSONS | AMOUNTS, max_size=3
).map(lambda other: ORDER | other)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """These bytes with a piece of them replaced: cut off, filled in, or flipped."""

    def damage(start: int, length: int, piece: bytes) -> bytes:
        return whole[:start] + piece + whole[start + length :]

    return st.builds(damage, st.integers(0, len(whole)), st.integers(0, len(whole)), st.binary(max_size=20))


def spelled(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def table() -> MarketTable:
    btc, usd = Asset(2, "BTC", 8), Asset(1, "USD", 8)
    return MarketTable.of([Market(1, "BTC-USD", btc, usd, 0, 1_000_000, 1_000, 100_000_000, 10, 20)])


def refuses(read: Callable[..., object], *arguments: object) -> None:
    """It returns, or raises an error that a caller may be told: one that is not INTERNAL."""
    refusal = None
    try:
        read(*arguments)
    except ExchangeError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code != "INTERNAL"
        assert refusal.message
        json.dumps(refusal.details)


# ---- HTTP ---------------------------------------------------------------------------------------


@QUICK
@given(ANY | JSONS.map(spelled) | ORDERS.map(spelled) | damaged(spelled(ORDER)))
def test_an_order(table: MarketTable, body: bytes) -> None:
    refuses(read_order, body, table)
    refuses(read_nothing, body)


@QUICK
@given(
    ANY | JSONS.map(spelled) | st.lists(ORDERS | JSONS, max_size=4).map(spelled) | damaged(spelled([ORDER]))
)
def test_a_batch(table: MarketTable, body: bytes) -> None:
    refuses(read_batch, body, table)
    assert 1 <= orders_in(body) <= 1_000


DEEP = (b"[" * 100_000, b'{"a":' * 100_000, b'"' + b"\\u0000" * 50_000, b"1" * 400_000)


@pytest.mark.parametrize("body", DEEP, ids=["lists", "objects", "text", "number"])
def test_what_is_deep_or_long(table: MarketTable, body: bytes) -> None:
    for read in (read_order, read_batch):
        refuses(read, body, table)
    refuses(read_nothing, body)
    assert orders_in(body) >= 1


def query_of(pairs: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{quote(name)}={quote(value, errors='replace')}" for name, value in pairs).encode()


@QUICK
@given(st.data())
def test_queries(data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(every_route()))
    names = st.sampled_from([*(parameter.name for parameter in route.query), "user_id"]) | TEXTS
    pairs = st.lists(st.tuples(names, TEXTS), max_size=4).map(query_of)
    raw = data.draw(ANY | pairs)
    refuses(Query, raw, route.query)


@QUICK
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=2))
def test_idempotency_keys(values: list[bytes]) -> None:
    headers = [(b"idempotency-key", value) for value in values]
    refuses(read_key, Call("POST", "/", b"/", b"", headers, "r"))


@QUICK
@given(ANY | damaged(b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nx-request-id: 7\r\n\r\n"))
def test_heads(data: bytes) -> None:
    head = Head(data)
    assert head.upgrade_path is None or isinstance(head.upgrade_path, str)
    assert head.request_id is None or isinstance(head.request_id, bytes)


@QUICK
@given(TEXTS)
def test_signatures_keys_and_networks(text: str) -> None:
    refuses(read_signature, text)
    refuses(read_public_key, text)
    refuses(read_public_key, f"-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----")
    refuses(read_networks, [text])
    refuses(check_address, read_networks(["10.0.0.0/8"]), text)


# ---- WebSocket ----------------------------------------------------------------------------------

ASKED = {"op": "subscribe", "channels": ["trades:BTC-USD", "orders"], "id": 1}
MESSAGES = st.dictionaries(st.sampled_from([*ASKED, "token", "timestamp"]), JSONS, max_size=3).map(
    lambda other: ASKED | other
)


@QUICK
@given(TEXTS | (JSONS | MESSAGES).map(json.dumps))
def test_messages(text: str) -> None:
    refuses(protocol.parse_request, text)
    assert isinstance(protocol.request_id(text), int | str | None)


@QUICK
@given(
    TEXTS | st.lists(TEXTS | st.sampled_from(["klines", "depth", "orders", "1m"]), max_size=4).map(":".join)
)
def test_channels(name: str) -> None:
    refuses(protocol.parse_channel, name)


# ---- Kafka --------------------------------------------------------------------------------------

(PART,) = wire.settlement_parts(SETTLEMENT)
DECODERS: Mapping[str, tuple[Callable[[bytes], object], bytes]] = {
    "batch": (wire.decode_batch, b"\x08\x01\x10\x01\x18\x05\x22\x20" + bytes(32)),
    "commands": (wire.decode_commands, b"\x0a\x04\x12\x02\x08\x01\x0a\x04\x0a\x02\x08\x01"),
    "settlement": (wire.decode_settlement, SETTLEMENT_BYTES),
    "settlement part": (
        lambda data: wire.SettlementJoiner().add(data, 1),
        wire.settlement_parts(SETTLEMENT)[0],
    ),
    "trades": (wire.decode_trades, SETTLEMENT_BYTES),
    "book": (wire.decode_book, SETTLEMENT_BYTES),
    "order updates": (wire.decode_order_updates, UPDATES_HEAD + b"".join(UPDATES)),
}


@pytest.mark.parametrize("name", DECODERS)
@QUICK
@given(st.data())
def test_records(name: str, data: st.DataObject) -> None:
    decode, whole = DECODERS[name]
    record: Any = data.draw(ANY | damaged(whole))
    try:
        decode(record)
    except wire.Undecodable:
        return
