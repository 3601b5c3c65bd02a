"""What is fast must say the same as what is plain: orders read, a batch at a time and through forms, and
accepted orders shown."""

import json
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.core.errors import ExchangeError, InvalidOrder, InvalidQuantity, Malformed
from common.core.messages import Asset, Market, OrderType, SelfTradePrevention, Side, TimeInForce
from common.core.orders import check_order
from common.core.units import MAX_INT64, atoms_from_text, price_from_text, qty_from_text, time_to_text
from exchange.v1 import orders_pb2 as pb
from gateway.calls import json_answer
from gateway.forms import Steps
from gateway.markets import MarketTable
from gateway.render import accepted_body
from gateway.validation import read_batch, read_order

USD, BTC = Asset(1, "USD", 8), Asset(2, "BTC", 8)
TABLE = MarketTable.of(
    [
        Market(1, "BTC-USD", BTC, USD, 0, 1_000_000, 1_000, 100_000_000, 10, 20),
        # A tick of a quarter, a lot of three, no least notional, no decimals in the base.
        Market(2, "ODD-USD", Asset(4, "ODD", 0), USD, 1, 25_000_000, 3, 0, 10, 20),
    ]
)

digits = st.text("0123456789", max_size=12)
amounts = st.one_of(
    st.builds(lambda whole, rest: f"{whole}.{rest}", digits, digits),
    st.sampled_from(["0.001", "50000.25", "3", "1.50", "100000.000000000000000", "00012.5", "0.00003"]),
    st.sampled_from(["0", "-1", "1e5", "", ".5", "5.", "+1", "١٢", " 1", "1_0", "9" * 19, "9" * 39, "1.5.5"]),
)
# Each field as it may be; None counts as absent.
orders = st.fixed_dictionaries(
    {
        "symbol": st.sampled_from(["BTC-USD", "BTC-USD", "ODD-USD", "DOGE-USD"]),
        "side": st.sampled_from(["BUY", "SELL"]),
        "type": st.sampled_from(["LIMIT", "LIMIT", "MARKET"]),
    },
    optional={
        "time_in_force": st.sampled_from(["GTC", "IOC", "FOK", None]),
        "post_only": st.sampled_from([True, False, None]),
        "price": amounts | st.none(),
        "quantity": amounts | st.none(),
        "quote_quantity": amounts | st.none(),
        "client_order_id": st.sampled_from(["a-1", "", "a b", "x" * 64, "x" * 65, "é", None]),
        "stp": st.sampled_from(["CANCEL_TAKER", "CANCEL_MAKER", "CANCEL_BOTH", None]),
    },
)
# An order, or something else in its place, as JSON.
good = {"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "50000.25", "quantity": "0.001"}
odd: st.SearchStrategy[object] = st.one_of(
    orders.map(lambda order: order | {"price": 50_000}),
    orders.map(lambda order: order | {"quantity": 0.25, "leverage": 5}),
    orders.map(lambda order: order | {"side": "buy"}),
    st.sampled_from([7, None, [], {}, "order", {"symbol": "BTC-USD"}, good | {"price": True}]),
)
items = st.one_of(
    orders.map(json.dumps).map(str.encode),
    st.just(json.dumps(good).encode()),
    odd.map(json.dumps).map(str.encode),
    st.just(json.dumps(good).encode().replace(b'"50000.25"', b'"\xff"')),
)


def outcome(read: object) -> object:
    """An order by its bytes, an error by all that an answer tells of it."""
    if isinstance(read, ExchangeError):
        return type(read), read.code, read.message, read.details, read.http_status
    assert isinstance(read, pb.NewOrder)
    return read.SerializeToString(deterministic=True)


def alone(body: bytes) -> pb.NewOrder | ExchangeError:
    try:
        return read_order(body, TABLE)
    except ExchangeError as error:
        return error


def naive(order: dict[str, object]) -> pb.NewOrder:
    """An order whose fields have the right types, through nothing but `common.core`."""
    market = TABLE.market(str(order["symbol"]))
    side, type_ = Side[str(order["side"])], OrderType[str(order["type"])]
    usual = "GTC" if type_ is OrderType.LIMIT else "IOC"
    time_in_force = TimeInForce[str(order.get("time_in_force") or usual)]
    stp = SelfTradePrevention[str(order.get("stp") or "CANCEL_TAKER")]
    if order.get("client_order_id") == "":
        why = "must not be empty; leave it out instead"
        raise Malformed(f"client_order_id {why}", {"client_order_id": why})
    price, quantity, quote_quantity = (
        cast(str | None, order.get(name)) for name in ("price", "quantity", "quote_quantity")
    )
    if type_ is OrderType.LIMIT and price is None:
        raise InvalidOrder("a LIMIT order needs a price", {"price": "required for a LIMIT order"})
    if quantity is None and quote_quantity is None:
        raise InvalidOrder("an order needs a quantity", {"quantity": "required"})
    try:
        quote_atoms = 0 if quote_quantity is None else atoms_from_text(market.quote, quote_quantity)
    except InvalidQuantity as error:
        why = error.details["quantity"]
        raise InvalidQuantity(f"quote_quantity {why}", {"quote_quantity": why}) from None
    numbers = {
        "price_ticks": 0 if price is None else price_from_text(market, price),
        "qty_lots": 0 if quantity is None else qty_from_text(market, quantity),
        "quote_atoms": quote_atoms,
    }
    post_only, name = bool(order.get("post_only")), str(order.get("client_order_id") or "")
    check_order(
        market, side=side, type=type_, time_in_force=time_in_force, post_only=post_only,
        client_order_id=name, **numbers,
    )  # fmt: skip
    return pb.NewOrder(
        symbol=market.symbol, side=side.value, type=type_.value, time_in_force=time_in_force.value,  # type: ignore[arg-type]  # Their numbers are the same.
        post_only=post_only, stp=stp.value, client_order_id=name, **numbers,  # type: ignore[arg-type]
    )  # fmt: skip


@given(orders)
@example(good | {"price": str(MAX_INT64)})
@example(good | {"symbol": "ODD-USD", "price": "0.25", "quantity": str(MAX_INT64 // 3 * 3)})
@example(good | {"post_only": True, "time_in_force": "IOC"})
def test_an_order_is_read_as_the_core_would(order: dict[str, object]) -> None:
    try:
        expected: pb.NewOrder | ExchangeError = naive(order)
    except ExchangeError as error:
        expected = error
    assert outcome(alone(json.dumps(order).encode())) == outcome(expected)


@given(st.lists(items, max_size=8))
def test_a_batch_is_read_as_its_orders_alone(bodies: list[bytes]) -> None:
    together = read_batch(b"[" + b" , ".join(bodies) + b"]", TABLE)
    assert [outcome(read) for read in together] == [outcome(alone(body)) for body in bodies]


@given(
    st.integers(1, 10**9) | st.sampled_from([1, 10, 1_000, 10**8, 10**12]),
    st.integers(0, 18),
    amounts | st.decimals(0, 10**10, places=4).map(lambda number: f"{number:f}"),
)
def test_steps_are_those_of_the_core_or_none(step_atoms: int, scale: int, text: str) -> None:
    market = Market(1, "A-B", Asset(1, "A", 0), Asset(2, "B", scale), 0, step_atoms, 1, 0, 0, 0)
    try:
        expected = price_from_text(market, text)
    except ExchangeError:
        expected = 0
    assert Steps(step_atoms, scale).of(text) in {0, expected}


@pytest.mark.parametrize(
    ("step_atoms", "scale", "text", "steps"),
    [
        (1_000_000, 8, "50000.25", 5_000_025),
        (1_000_000, 8, "50000.2", 5_000_020),
        (1_000_000, 8, "050000", 5_000_000),
        (25_000_000, 8, "1.75", 7),
        (1_000, 8, "0.00100", 100),
        (3, 0, "12", 4),
        (100, 0, "1200", 12),
    ],
)
def test_plain_texts_are_read_without_the_core(step_atoms: int, scale: int, text: str, steps: int) -> None:
    assert Steps(step_atoms, scale).of(text) == steps


@given(
    st.lists(
        st.builds(
            pb.Accepted,
            order_id=st.integers(1, MAX_INT64),
            client_order_id=st.sampled_from(["", "a-1", 'quoted "here" \\ é\n']),
            symbol=st.sampled_from(["BTC-USD", "É-1"]),
            sequence=st.integers(1, MAX_INT64),
            created_us=st.integers(0, 4_000_000_000_000_000),
        ),
        max_size=5,
    )
)
def test_accepted_orders_are_shown_as_the_contract_has_them(accepted: list[pb.Accepted]) -> None:
    shown = [
        {
            "order_id": str(one.order_id),
            "client_order_id": one.client_order_id or None,
            "symbol": one.symbol,
            "sequence": one.sequence,
            "status": "ACCEPTED",
            "created_at": time_to_text(one.created_us),
        }
        for one in accepted
    ]
    plain = json.dumps({"results": shown}, separators=(",", ":"), ensure_ascii=False).encode()
    assert json_answer({"results": [accepted_body(one) for one in accepted]}).body == plain
