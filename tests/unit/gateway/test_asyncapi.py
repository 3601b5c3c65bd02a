"""The AsyncAPI document: whole, and of the same types as what is sent."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from common.core.messages import Asset, Market
from common.core.views import Ticker
from common.socket_messages import CHANNELS, PRIVATE, REPLIES, Ping, Reply, Request, Subscribed
from daemons.market_data import protocol
from daemons.market_data.render import DepthBody, TickerBody, order_to_json, order_update_to_json
from exchange.v1 import events_pb2 as ev
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from gateway.asyncapi import asyncapi

DOCUMENT: dict[str, Any] = json.loads(msgspec.json.encode(asyncapi()))
MESSAGES = DOCUMENT["components"]["messages"]
MARKET = Market(
    1, "BTC-USD", Asset(2, "BTC", 8), Asset(1, "USD", 8), 0, 1_000_000, 1_000, 100_000_000, 10, 20
)


def check(message: str, value: object) -> None:
    """Raises jsonschema_rs.ValidationError."""
    schema = MESSAGES[message]["payload"] | {"components": DOCUMENT["components"]}
    jsonschema_rs.validate(schema, json.loads(msgspec.json.encode(value)))


def data(channel: str, kind: str, value: object) -> dict[str, object]:
    return {"channel": channel, "type": kind, "sequence": 2, "previous": 1, "data": value}


def test_every_message_of_a_channel_is_in_it() -> None:
    for channel in CHANNELS:
        for kind in ("snapshot", "update"):
            assert MESSAGES[f"{channel.kind}_{kind}"]["x-private"] is (channel.kind in PRIVATE)


def test_channels_are_those_that_can_be_subscribed_to() -> None:
    for channel in CHANNELS:
        assert protocol.parse_channel(channel.example).kind == channel.kind
        assert protocol.parse_channel(channel.example).private is channel.private


def test_operations_name_every_message_once() -> None:
    named = [message["$ref"] for one in DOCUMENT["operations"].values() for message in one["messages"]]
    assert sorted(named) == sorted(f"#/channels/ws/messages/{name}" for name in MESSAGES)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("subscribe", '{"op": "subscribe", "channels": ["trades:BTC-USD"], "id": 1}'),
        ("unsubscribe", '{"op": "unsubscribe", "channels": []}'),
        ("auth", '{"op": "auth", "token": "t", "id": "x"}'),
        ("ping", '{"op": "ping"}'),
    ],
)
def test_what_is_read_fits(name: str, text: str) -> None:
    check(name, json.loads(text))
    assert isinstance(protocol.parse_request(text), Request)


def test_what_is_not_read_does_not_fit() -> None:
    for name, text in (
        ("ping", '{"op": "ping", "x": 1}'),
        ("subscribe", '{"op": "subscribe", "channels": []}'),
    ):
        with pytest.raises(jsonschema_rs.ValidationError):
            check(name, json.loads(text))


def test_replies_fit_and_are_read_back() -> None:
    reply = Subscribed(["trades:BTC-USD"], "mine")
    check("subscribed", reply)
    assert msgspec.json.decode(msgspec.json.encode(reply), type=Reply) == reply
    assert {reply.__struct_config__.tag for reply in REPLIES} == (
        {"subscribed", "unsubscribed", "authenticated", "pong", "error"}
    )
    assert Ping().id is None


def test_data_fits() -> None:
    check("depth_update", data("depth:BTC-USD", "update", DepthBody(MARKET, [(1, 2)], []).to_json()))
    ticker = TickerBody(MARKET, Ticker(0, 0, 0, 0, 0, 0, 0), bid_ticks=0, ask_ticks=1).to_json()
    check("ticker_snapshot", data("ticker:BTC-USD", "snapshot", ticker))
    live = order_to_json(
        MARKET, pb.Order(order_id=1, side=ty.SIDE_BUY, status=ty.ORDER_STATUS_OPEN, type=ty.ORDER_TYPE_LIMIT)
    )
    check("orders_snapshot", data("orders", "snapshot", [live]))
    state = ev.OrderState(order_id=1, side=ty.SIDE_SELL, status=ty.ORDER_STATUS_FILLED)
    update = order_update_to_json(MARKET, ev.UserOrderUpdate(state=state), 1)
    check("orders_update", data("orders", "update", update))
