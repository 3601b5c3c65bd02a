"""Order bodies: what is taken, and the code and field of everything that is not."""

import json

import msgspec
import pytest

from common.core.errors import ExchangeError, Malformed
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.markets import MarketTable
from gateway.validation import BATCH_LIMIT, read_batch, read_nothing, read_order

LIMIT: dict[str, object] = {
    "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "100000.50", "quantity": "0.00100",
}  # fmt: skip
MARKET: dict[str, object] = {"symbol": "BTC-USD", "side": "BUY", "type": "MARKET", "quantity": "0.001"}


def body(order: object) -> bytes:
    return json.dumps(order).encode()


def without(order: dict[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in order.items() if name not in names}


def refusal(raw: bytes, table: MarketTable) -> ExchangeError:
    with pytest.raises(ExchangeError) as refused:
        read_order(raw, table)
    return refused.value


def test_a_limit_order_in_ticks_and_lots(table: MarketTable) -> None:
    order = read_order(body(LIMIT | {"client_order_id": "a-1"}), table)
    assert order == pb.NewOrder(
        symbol="BTC-USD", side=ty.SIDE_BUY, type=ty.ORDER_TYPE_LIMIT, time_in_force=ty.TIME_IN_FORCE_GTC,
        stp=ty.SELF_TRADE_PREVENTION_CANCEL_TAKER, price_ticks=10_000_050, qty_lots=100,
        client_order_id="a-1",
    )  # fmt: skip


def test_a_market_order_is_immediate_unless_it_says_otherwise(table: MarketTable) -> None:
    assert read_order(body(MARKET), table).time_in_force == ty.TIME_IN_FORCE_IOC
    fok = MARKET | {"time_in_force": "FOK"}
    assert read_order(body(fok), table).time_in_force == ty.TIME_IN_FORCE_FOK


def test_a_market_buy_by_amount(table: MarketTable) -> None:
    order = read_order(body(without(MARKET, "quantity") | {"quote_quantity": "12.34"}), table)
    assert (order.quote_atoms, order.qty_lots) == (1_234_000_000, 0)


def test_null_is_absent(table: MarketTable) -> None:
    nulls: dict[str, object] = dict.fromkeys(
        ("quote_quantity", "client_order_id", "time_in_force", "post_only", "stp")
    )
    assert read_order(body(LIMIT | nulls), table) == read_order(body(LIMIT), table)


@pytest.mark.parametrize(
    ("number", "ticks"),
    [("100000.1", 10_000_010), ("100000.07", 10_000_007), ("90071992547409.93", 2**53 + 1)],
)
def test_json_numbers_are_exact(number: str, ticks: int, table: MarketTable) -> None:
    """A float would lose the last of these; digit by digit they are what they say."""
    raw = body(LIMIT).replace(b'"100000.50"', number.encode())
    assert read_order(raw, table).price_ticks == ticks


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"price": "0"}, "INVALID_PRICE", "price"),
        ({"price": "-1"}, "INVALID_PRICE", "price"),
        ({"price": -1}, "INVALID_PRICE", "price"),
        ({"price": "NaN"}, "INVALID_PRICE", "price"),
        ({"price": "Infinity"}, "INVALID_PRICE", "price"),
        ({"price": "1e5"}, "INVALID_PRICE", "price"),
        ({"price": ""}, "INVALID_PRICE", "price"),
        ({"price": "9" * 40}, "INVALID_PRICE", "price"),
        ({"price": int("9" * 40)}, "INVALID_PRICE", "price"),
        ({"price": "100000.505"}, "INVALID_PRICE", "price"),
        ({"price": "١٢"}, "INVALID_PRICE", "price"),
        ({"price": True}, "MALFORMED", "price"),
        ({"price": {}}, "MALFORMED", "price"),
        ({"price": None}, "INVALID_ORDER", "price"),
        ({"quantity": "0"}, "INVALID_QUANTITY", "quantity"),
        ({"quantity": "-0.1"}, "INVALID_QUANTITY", "quantity"),
        ({"quantity": "0.000001"}, "INVALID_QUANTITY", "quantity"),
        ({"quantity": "1" * 40}, "INVALID_QUANTITY", "quantity"),
        ({"quantity": None}, "INVALID_ORDER", "quantity"),
        ({"quantity": "0.00001", "price": "1"}, "NOTIONAL_TOO_SMALL", "min_notional_atoms"),
        ({"quantity": "90000", "price": "90000000"}, "NOTIONAL_TOO_LARGE", None),
        ({"quote_quantity": "5"}, "INVALID_ORDER", "quote_quantity"),
        ({"symbol": "DOGE-USD"}, "UNKNOWN_SYMBOL", "symbol"),
        ({"symbol": 7}, "MALFORMED", "symbol"),
        ({"symbol": None}, "MALFORMED", "symbol"),
        ({"side": "buy"}, "MALFORMED", "side"),
        ({"side": "SHORT"}, "MALFORMED", "side"),
        ({"type": "STOP"}, "MALFORMED", "type"),
        ({"time_in_force": "GTD"}, "MALFORMED", "time_in_force"),
        ({"stp": "NONE"}, "MALFORMED", "stp"),
        ({"post_only": "yes"}, "MALFORMED", "post_only"),
        ({"post_only": True, "time_in_force": "IOC"}, "INVALID_ORDER", "post_only"),
        ({"client_order_id": "x" * 65}, "MALFORMED", "client_order_id"),
        ({"client_order_id": "a b"}, "MALFORMED", "client_order_id"),
        ({"client_order_id": ""}, "MALFORMED", "client_order_id"),
        ({"client_order_id": 7}, "MALFORMED", "client_order_id"),
        ({"user_id": "1002"}, "MALFORMED", "user_id"),
        ({"leverage": 100}, "MALFORMED", "leverage"),
    ],
)
def test_a_wrong_limit_order(
    change: dict[str, object], code: str, field: str | None, table: MarketTable
) -> None:
    error = refusal(body(LIMIT | change), table)
    assert error.code == code
    assert field is None or field in error.details


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"price": "5"}, "INVALID_ORDER", "price"),
        ({"post_only": True}, "INVALID_ORDER", "post_only"),
        ({"time_in_force": "GTC"}, "INVALID_ORDER", "time_in_force"),
        ({"quote_quantity": "5"}, "INVALID_ORDER", "quote_quantity"),
        ({"quote_quantity": "NaN", "quantity": None}, "INVALID_QUANTITY", "quote_quantity"),
        ({"quote_quantity": "0.5", "quantity": None}, "NOTIONAL_TOO_SMALL", "min_notional_atoms"),
        ({"quote_quantity": "5", "quantity": None, "side": "SELL"}, "INVALID_ORDER", "quote_quantity"),
    ],
)
def test_a_wrong_market_order(change: dict[str, object], code: str, field: str, table: MarketTable) -> None:
    error = refusal(body(MARKET | change), table)
    assert (error.code, field in error.details) == (code, True)


def test_a_number_with_an_exponent_is_refused_before_anybody_computes_it(table: MarketTable) -> None:
    raw = body(LIMIT).replace(b'"100000.50"', b"1e400")
    assert refusal(raw, table).code == "INVALID_PRICE"


def test_all_that_is_wrong_is_said_at_once(table: MarketTable) -> None:
    error = refusal(body({"side": "X", "post_only": 1, "user_id": 5, "foo": 1, "type": "LIMIT"}), table)
    assert set(error.details) == {"symbol", "side", "post_only", "user_id", "foo"}
    assert "authenticated" in error.details["user_id"]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"nonsense", b'{"symbol":"BTC-USD",}', b"\xff\xfe", b'{"symbol":"\xff"}', b"{}{}",
        b"[" * 100_000, b'{"foo":' * 100_000, b'{"symbol":"BTC-USD","price":' + b"[" * 100_000,
    ],
    ids=[
        "empty", "open", "word", "comma", "no utf-8", "no utf-8 inside", "two",
        "deep list", "deep object", "deep price",
    ],
)  # fmt: skip
def test_what_is_not_json(raw: bytes, table: MarketTable) -> None:
    assert refusal(raw, table).code == "MALFORMED"
    with pytest.raises(Malformed):
        read_batch(raw, table)


@pytest.mark.parametrize("raw", [b"[]", b'"order"', b"7", b"null"])
def test_an_order_is_an_object(raw: bytes, table: MarketTable) -> None:
    assert "object" in refusal(raw, table).message


def test_a_bare_nan_is_not_json(table: MarketTable) -> None:
    assert (
        refusal(body(LIMIT).replace(b'"100000.50"', b"NaN"), table).message == "The body is not valid JSON."
    )


def test_errors_of_a_batch_stand_in_their_places(table: MarketTable) -> None:
    orders = read_batch(body([LIMIT, LIMIT | {"price": "0"}, {}, LIMIT]), table)
    assert [type(one).__name__ for one in orders] == ["NewOrder", "InvalidPrice", "Malformed", "NewOrder"]


def test_a_batch_of_a_thousand_is_read_and_one_more_is_not(table: MarketTable) -> None:
    assert len(read_batch(body([LIMIT] * BATCH_LIMIT), table)) == BATCH_LIMIT
    with pytest.raises(Malformed, match="1,000"):
        read_batch(body([LIMIT] * (BATCH_LIMIT + 1)), table)
    with pytest.raises(Malformed, match="list"):
        read_batch(body(LIMIT), table)


def test_requests_without_fields_may_send_an_empty_object_and_nothing_else() -> None:
    read_nothing(b"")
    read_nothing(b" {} ")
    with pytest.raises(Malformed) as refused:
        read_nothing(b'{"user_id": 7}')
    assert "user_id" in refused.value.details
    for raw in (b"[]", b"{"):
        with pytest.raises(Malformed):
            read_nothing(raw)


def test_an_item_of_a_batch_is_read_as_a_body_is(table: MarketTable) -> None:
    assert read_order(msgspec.Raw(body(LIMIT)), table) == read_order(body(LIMIT), table)
