"""Orders before they are sent, and what is read of answers."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest

from exchange_client import Joined, LimitOrder, Market, MarketOrder, Order, OrderStatus, Refusal
from exchange_client.batches import Batch, encode
from exchange_client.errors import Busy, InvalidPrice, ProtocolError, Unavailable
from exchange_client.http import Answer, target_of
from exchange_client.values import time_text

ACCEPTED = {"order_id": "1", "symbol": "BTC-USD", "sequence": 7, "created_at": "2026-01-02T03:04:05.000006Z"}


def limit(**changes: object) -> LimitOrder:
    fields = {"symbol": "BTC-USD", "side": "BUY", "price": "60000.00", "quantity": Decimal("0.001")}
    return LimitOrder(**(fields | changes))  # type: ignore[arg-type]


def test_an_order_has_its_name_from_the_moment_it_is_made() -> None:
    first, second = limit(), limit()
    assert first.client_order_id != second.client_order_id
    assert 1 <= len(first.client_order_id) <= 64
    assert limit(client_order_id="mine").client_order_id == "mine"


def test_amounts_go_out_as_plain_digits() -> None:
    sent = msgspec.json.decode(encode(limit(price=60_000, quantity=Decimal("1E-5"))))
    assert (sent["type"], sent["price"], sent["quantity"]) == ("LIMIT", "60000", "0.00001")
    spent = msgspec.json.decode(encode(MarketOrder(symbol="X", side="BUY", quote_quantity=Decimal("1E+3"))))
    assert (spent["type"], spent["quote_quantity"], spent.get("quantity")) == ("MARKET", "1000", None)


@pytest.mark.parametrize("amount", [0.1, True, None])
def test_an_amount_is_never_a_float(amount: object) -> None:
    with pytest.raises(TypeError, match="price must be"):
        limit(price=amount)


@pytest.mark.parametrize("amount", ["", "much", "NaN", Decimal("Infinity")])
def test_an_amount_is_a_number(amount: object) -> None:
    with pytest.raises(ValueError, match="quantity must be"):
        limit(quantity=amount)


def test_an_answer_is_read_exactly_and_new_fields_do_no_harm() -> None:
    body = {
        "order_id": "1", "symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "time_in_force": "GTC",
        "status": "PONDERED", "filled_quantity": "0.10000", "filled_quote": "6000", "fee": "0.0001",
        "created_at": "2026-01-02T03:04:05.000006Z", "updated_at": "2026-01-02T03:04:05.000006Z",
        "price": "60000.00", "quantity": "0.1", "mood": "good",
    }  # fmt: skip
    order = msgspec.json.decode(msgspec.json.encode(body), type=Order)
    assert order.price == Decimal("60000.00")
    assert order.created_at == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
    assert (order.status, order.status.live) == (OrderStatus.UNKNOWN, False)


def test_a_market_rounds_to_its_units() -> None:
    market = Market(
        "BTC-USD", "BTC", "USD", Decimal("0.01"), Decimal("0.00001"), Decimal(1), 10, 20, "ACTIVE"
    )
    assert market.price(Decimal("60000.019")) == Decimal("60000.01")
    assert market.price(Decimal("60000.011"), "ROUND_UP") == Decimal("60000.02")
    assert market.quantity(Decimal("0.123456")) == Decimal("0.12345")


def test_a_new_user_shows_no_secret() -> None:
    joined = Joined("7", "the-token", [], "key", "the-secret")
    assert "the-" not in repr(joined)


def test_a_query_leaves_out_what_is_not_said() -> None:
    assert target_of("/orders", {"symbol": None, "cursor": ""}) == "/api/v1/orders"
    query = {"symbol": "A&B", "status": OrderStatus.OPEN, "limit": 5}
    assert target_of("/orders", query) == "/api/v1/orders?symbol=A%26B&status=OPEN&limit=5"


def test_a_time_goes_out_in_utc_and_needs_a_zone() -> None:
    zone = timezone(timedelta(hours=2))
    assert time_text(datetime(2026, 1, 2, 3, 4, 5, 6, zone)) == "2026-01-02T01:04:05.000006Z"
    with pytest.raises(ValueError, match="zone"):
        time_text(datetime(2026, 1, 2))


def results(*given: object) -> Answer:
    return Answer(202, msgspec.json.encode({"results": given}))


def refused(code: str) -> dict[str, object]:
    return {"error": {"code": code, "message": "no", "details": {}}}


def asked_for(batch: Batch) -> list[str]:
    return [order["client_order_id"] for order in msgspec.json.decode(batch.ask())]


def test_only_what_is_not_decided_of_a_batch_is_sent_again() -> None:
    batch = Batch([limit(client_order_id=name) for name in "abcd"])
    assert asked_for(batch) == list("abcd")
    with pytest.raises(Busy):
        batch.take(results(ACCEPTED, refused("BUSY"), refused("INVALID_PRICE"), refused("UNAVAILABLE")))
    assert asked_for(batch) == list("bd")
    assert batch.results() is None  # What was said of those two holds no more.
    batch.take(results(ACCEPTED | {"order_id": "2"}, ACCEPTED | {"order_id": "4"}))
    first, second, third, fourth = batch.results() or []
    assert isinstance(third, InvalidPrice)
    assert [getattr(one, "order_id", "") for one in (first, second, fourth)] == ["1", "2", "4"]


def test_a_batch_that_stays_undecided_says_so_order_by_order() -> None:
    batch = Batch([limit(), limit()])
    batch.ask()
    with pytest.raises(Unavailable):
        batch.take(results(ACCEPTED, refused("UNAVAILABLE")))
    assert [isinstance(result, Refusal) for result in batch.results() or []] == [False, True]


@pytest.mark.parametrize("answer", [results(), results({"order_id": 1}), Answer(202, b"<html>")])
def test_an_answer_that_is_none_is_a_protocol_error(answer: Answer) -> None:
    batch = Batch([limit()])
    batch.ask()
    with pytest.raises(ProtocolError):
        batch.take(answer)
