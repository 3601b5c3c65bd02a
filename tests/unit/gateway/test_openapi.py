"""The OpenAPI document: valid, whole, and of the same types as what is sent."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from common.core.errors import ExchangeError
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.app import every_route, sections
from gateway.errors import RateLimited, error_answer, public_errors
from gateway.markets import MarketTable
from gateway.openapi import openapi
from gateway.render import accepted_body, market_json, order_json
from gateway.validation import OrderBody

DOCUMENT: dict[str, Any] = json.loads(
    msgspec.json.encode(openapi(sections(local_mode=True), public_errors()))
)
OPERATIONS = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]


def check(component: str, value: object) -> None:
    """Raises jsonschema_rs.ValidationError."""
    schema = {"$ref": f"#/components/schemas/{component}", "components": DOCUMENT["components"]}
    jsonschema_rs.validate(schema, json.loads(msgspec.json.encode(value)))


def references(value: object) -> list[str]:
    if isinstance(value, list):
        return [found for one in value for found in references(one)]
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + references(list(value.values()))
    return []


def test_the_document_is_one() -> None:
    OPENAPI_31_VALIDATOR.validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_every_route_of_the_api_is_in_it_and_nothing_else() -> None:
    routes = [route for route in every_route() if route.documented]
    assert len(OPERATIONS) == len(routes)
    assert {operation["operationId"] for operation in OPERATIONS} == {route.operation for route in routes}


def test_test_money_is_documented_where_it_exists() -> None:
    assert "/api/v1/test/join" not in openapi(sections(local_mode=False), public_errors())["paths"]


@pytest.mark.parametrize("error", public_errors(), ids=lambda error: str(error.code))
def test_every_error_says_what_it_means_and_what_to_do(error: type[ExchangeError]) -> None:
    own = vars(error)
    assert own["__doc__"]
    assert own["code"] == error.code
    assert own["remedy"].endswith(".")


def test_no_code_is_used_twice_and_all_are_in_the_table() -> None:
    codes = [error.code for error in public_errors()]
    assert len(set(codes)) == len(codes)
    assert {row["code"] for row in DOCUMENT["x-errors"]} == set(codes)
    for response in DOCUMENT["components"]["responses"].values():
        assert set(response["description"].split(", ")) <= set(codes)


def test_examples_fit_their_own_schemas() -> None:
    for operation in OPERATIONS:
        for media in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in media:
                schema = media["schema"] | {"components": DOCUMENT["components"]}
                jsonschema_rs.validate(schema, media["example"])


def test_what_is_rendered_fits(table: MarketTable) -> None:
    check("Failed", json.loads(error_answer(RateLimited("", 1, {"limit": "1"})).body))
    market = table.market("BTC-USD")
    order = pb.Order(
        order_id=1, market_id=1, side=ty.SIDE_BUY, type=ty.ORDER_TYPE_MARKET,
        time_in_force=ty.TIME_IN_FORCE_IOC, stp=ty.SELF_TRADE_PREVENTION_CANCEL_TAKER,
        status=ty.ORDER_STATUS_CANCELED, reason=ty.REASON_UNFILLED_REMAINDER,
    )  # fmt: skip
    check("Market", market_json(market))
    check("Order", order_json(market, order))
    check("Accepted", accepted_body(pb.Accepted(order_id=1, symbol="BTC-USD", created_us=1)))


@pytest.mark.parametrize("amount", ["0.1", 0.1, 1, None])
def test_amounts_are_texts_or_numbers(amount: object) -> None:
    body = {"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": amount}
    check("OrderBody", body)
    assert msgspec.json.decode(msgspec.json.encode(body), type=OrderBody).symbol == "BTC-USD"


@pytest.mark.parametrize("amount", ["-1", "1e5", "", True, [], -0.5])
def test_other_amounts_are_not(amount: object) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        check("OrderBody", {"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": amount})
