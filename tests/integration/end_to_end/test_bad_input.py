"""Each bad input gets its status and code from the whole exchange, and changes nothing."""

from collections.abc import Iterator

import pytest

from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import Json, balances, clear, get, limit, market, place, settled

GOOD = limit("BUY", "50000.00", "0.01")
DIGITS = "9" * 40

BAD_ORDERS: list[tuple[str, object, int, str]] = [
    ("unknown field", GOOD | {"colour": "red"}, 400, "MALFORMED"),
    ("a user id in the body", GOOD | {"user_id": "1"}, 400, "MALFORMED"),
    ("unknown side", GOOD | {"side": "HOLD"}, 400, "MALFORMED"),
    ("unknown type", GOOD | {"type": "STOP"}, 400, "MALFORMED"),
    ("unknown time in force", GOOD | {"time_in_force": "DAY"}, 400, "MALFORMED"),
    ("no symbol", {key: GOOD[key] for key in GOOD if key != "symbol"}, 400, "MALFORMED"),
    ("a list", [GOOD], 400, "MALFORMED"),
    ("unknown symbol", GOOD | {"symbol": "DOGE-USD"}, 404, "UNKNOWN_SYMBOL"),
    ("price off the tick", GOOD | {"price": "50000.001"}, 422, "INVALID_PRICE"),
    ("negative price", GOOD | {"price": "-1"}, 422, "INVALID_PRICE"),
    ("price zero", GOOD | {"price": "0"}, 422, "INVALID_PRICE"),
    ("price NaN", GOOD | {"price": "NaN"}, 422, "INVALID_PRICE"),
    ("price of 40 digits", GOOD | {"price": DIGITS}, 422, "INVALID_PRICE"),
    ("quantity off the lot", GOOD | {"quantity": "0.000001"}, 422, "INVALID_QUANTITY"),
    ("negative quantity", GOOD | {"quantity": "-1"}, 422, "INVALID_QUANTITY"),
    ("quantity zero", GOOD | {"quantity": 0}, 422, "INVALID_QUANTITY"),
    ("quantity infinite", GOOD | {"quantity": "Infinity"}, 422, "INVALID_QUANTITY"),
    ("quantity of 40 digits", GOOD | {"quantity": DIGITS}, 422, "INVALID_QUANTITY"),
    ("notional too small", GOOD | {"price": "0.01"}, 422, "NOTIONAL_TOO_SMALL"),
    ("notional over int64", limit("BUY", "9000000000", "9000000000"), 422, "NOTIONAL_TOO_LARGE"),
    ("more than there is", GOOD | {"quantity": "1000"}, 422, "INSUFFICIENT_FUNDS"),
    ("a market order with a price", market("SELL", quantity="1", price="1"), 422, "INVALID_ORDER"),
    ("a market sell by quote", market("SELL", quote_quantity="10"), 422, "INVALID_ORDER"),
    ("a market buy by both", market("BUY", quote_quantity="10", quantity="1"), 422, "INVALID_ORDER"),
]
BAD_BODIES: list[tuple[str, bytes, int, str]] = [
    ("broken", b'{"symbol": "BTC-USD"', 400, "MALFORMED"),
    ("empty", b"", 400, "MALFORMED"),
    (
        "bare NaN",
        b'{"symbol":"BTC-USD","side":"BUY","type":"LIMIT","price":NaN,"quantity":"1"}',
        400,
        "MALFORMED",
    ),
    ("not UTF-8", b'{"symbol": "\xff"}', 400, "MALFORMED"),
    ("over 1 MiB", b'{"symbol": "' + b"x" * (1 << 20) + b'"}', 413, "PAYLOAD_TOO_LARGE"),
]


@pytest.fixture(scope="module")
def user(exchange: Exchange) -> User:
    return exchange.join()


@pytest.fixture(autouse=True)
def _changes_nothing(exchange: Exchange, user: User) -> Iterator[None]:
    def everything() -> tuple[object, object]:
        return balances(exchange, user), get(exchange, "/api/v1/orders", user)

    before = everything()
    yield
    assert everything() == before


def code_of(body: Json) -> object:
    return body["error"]["code"]


@pytest.mark.parametrize(
    ("what", "order", "status", "code"), BAD_ORDERS, ids=[each[0] for each in BAD_ORDERS]
)
def test_a_bad_order(
    exchange: Exchange, user: User, what: str, order: object, status: int, code: str
) -> None:
    response = exchange.http.post("/api/v1/orders", json=order, headers=user.headers)
    assert (response.status_code, code_of(response.json())) == (status, code)
    assert response.headers["x-request-id"]
    if isinstance(order, dict):  # The same order in a batch: its place says the same.
        batch = exchange.http.post("/api/v1/orders/batch", json=[order], headers=user.headers)
        assert [code_of(result) for result in batch.json()["results"]] == [code]


@pytest.mark.parametrize(("what", "body", "status", "code"), BAD_BODIES, ids=[each[0] for each in BAD_BODIES])
def test_a_bad_body(exchange: Exchange, user: User, what: str, body: bytes, status: int, code: str) -> None:
    response = exchange.http.post("/api/v1/orders", content=body, headers=user.headers)
    assert (response.status_code, code_of(response.json())) == (status, code)


def test_a_batch_of_1001(exchange: Exchange, user: User) -> None:
    response = exchange.http.post("/api/v1/orders/batch", json=[GOOD] * 1001, headers=user.headers)
    assert (response.status_code, code_of(response.json())) == (400, "MALFORMED")


@pytest.mark.parametrize("token", ["", "nobody", "x" * 5000])
def test_nobody(exchange: Exchange, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = exchange.http.post("/api/v1/orders", json=GOOD, headers=headers)
    assert (response.status_code, code_of(response.json())) == (401, "UNAUTHENTICATED")


def test_a_filled_order_cannot_be_canceled(exchange: Exchange) -> None:
    maker, taker = exchange.join(), exchange.join()
    ask = place(exchange, maker, limit("SELL", "70000", "0.01"))
    bought = place(exchange, taker, limit("BUY", "70000", "0.01"))
    assert settled(exchange, taker, bought["order_id"])["status"] == "FILLED"
    before = balances(exchange, maker)
    clear(exchange, maker)
    response = exchange.http.delete(f"/api/v1/orders/{ask['order_id']}", headers=maker.headers)
    assert (response.status_code, code_of(response.json())) == (409, "ORDER_NOT_LIVE")
    assert balances(exchange, maker) == before


def test_a_market_buy_needs_a_price_to_hold_by(exchange: Exchange, user: User) -> None:
    response = exchange.http.post(
        "/api/v1/orders", json=market("BUY", symbol="ETH-USD", quantity="1"), headers=user.headers
    )
    assert (response.status_code, code_of(response.json())) == (422, "NO_REFERENCE_PRICE")
