"""What clients may say, and the bytes of what they are told."""

import json

import pytest

from common.core.errors import Malformed
from common.socket_messages import Auth, Ping, Subscribe, UnknownChannel
from daemons.market_data import protocol
from daemons.market_data.protocol import ChannelName, parse_channel, parse_request


def test_requests_are_read() -> None:
    text = '{"op": "subscribe", "channels": ["trades:BTC-USD"], "id": 1}'
    assert parse_request(text) == Subscribe(["trades:BTC-USD"], 1)
    assert parse_request('{"op": "ping"}') == Ping()
    assert parse_request('{"op": "auth", "token": "t", "id": "x"}') == Auth(token="t", id="x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1]",
        '"ping"',
        "{",
        '{"op": "ping"} x',
        '{"op": 1}',
        '{"op": "buy"}',
        '{"op": "ping", "extra": 1}',
        '{"op": "ping", "channels": []}',
        '{"op": "subscribe"}',
        '{"op": "subscribe", "channels": []}',
        '{"op": "subscribe", "channels": [1]}',
        '{"op": "ping", "id": 1.5}',
        '{"op": "ping", "id": {}}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_request(text)
    protocol.request_id(text)  # And finding its id never fails.


def test_the_id_of_a_malformed_request_comes_back_where_there_is_one() -> None:
    assert protocol.request_id('{"op": "dance", "id": 9}') == 9
    assert protocol.request_id('{"id": "nine"}') == "nine"
    assert protocol.request_id('{"id": []}') is None
    assert protocol.request_id("{") is None


def test_channels_are_taken_apart() -> None:
    assert parse_channel("depth:BTC-USD") == ChannelName("depth", "BTC-USD")
    assert parse_channel("klines:BTC-USD:1h") == ChannelName("klines", "BTC-USD", 3_600)
    assert parse_channel("orders").private
    assert not parse_channel("ticker:X").private


@pytest.mark.parametrize(
    "name",
    [
        "",
        "depth",
        "depth:",
        "depth:A:B",
        "klines:A",
        "klines:A:2m",
        "klines::1m",
        "orders:A",
        "x:A",
        "x" * 9_999,
    ],
)
def test_other_channels_do_not_exist(name: str) -> None:
    with pytest.raises(UnknownChannel) as refused:
        parse_channel(name)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_frames_carry_their_length_as_the_standard_says(size: int, head: bytes) -> None:
    payload = b"x" * size
    assert protocol.text_frame(payload) == head + payload  # RFC 6455, 5.2.


def test_control_frames() -> None:
    assert protocol.ping_frame() == b"\x89\x00"
    assert protocol.pong_frame(b"hi") == b"\x8a\x02hi"
    assert protocol.close_frame(1013, "slow") == b"\x88\x06\x03\xf5slow"
    long = protocol.close_frame(1008, "é" * 100)
    assert long[1] == len(long) - 2 <= 125
    assert long[4:].decode() == "é" * 61


def test_data_messages_are_as_the_contract_says() -> None:
    frame = protocol.data_frame("depth:X", snapshot=False, sequence=5, previous=4, data={"bids": []})
    assert json.loads(frame[2:]) == {
        "channel": "depth:X",
        "type": "update",
        "sequence": 5,
        "previous": 4,
        "data": {"bids": []},
    }
    error = json.loads(protocol.error_frame(UnknownChannel("no", {"channel": "x"}), "7")[2:])
    assert error == {
        "op": "error",
        "error": {"code": "UNKNOWN_CHANNEL", "message": "no", "details": {"channel": "x"}},
        "id": "7",
    }
