"""Bytes that no client of ours would send, to every public port of a running exchange.

A server may refuse or hang up. It may not fail: no 500, no INTERNAL of its own, no error in a log, and the
next client is served. What the parsers themselves do: tests/unit/test_hostile_bytes.py.
"""

import base64
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as ty
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.test_authorization import GRPC, METHODS, bearer
from tests.unit.test_hostile_bytes import ANY, JSONS, MESSAGES, damaged

PATIENCE_S = 10.0
QUICK = settings(max_examples=30)

REQUESTS = (
    b"GET /api/v1/orderbook?symbol=BTC-USD HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b'POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n{"a": 1}',
    b"POST /api/v1/orders/batch HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
)
WORDS = st.sampled_from(b"GET POST /api/v1/time // * http://x/ % %00 HTTP/9.9 chunked -1 1e9".split())
NAMES = st.sampled_from(
    b"Content-Length Transfer-Encoding Authorization Idempotency-Key Origin X-Request-Id Connection Upgrade"
    b" Accept-Encoding If-None-Match X-Api-Key X-Timestamp X-Signature".split()
)
# Requests that have the shape of one, and strange parts.
SHAPED = st.builds(
    lambda method, target, headers: (
        method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n" + b"".join(headers) + b"\r\n"
    ),
    WORDS | ANY,
    WORDS | ANY,
    st.lists(st.builds(lambda name, value: name + b": " + value + b"\r\n", NAMES, ANY | WORDS), max_size=4),
)
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n"
)
SUBSCRIBE = b'{"op": "subscribe", "channels": ["depth:BTC-USD"]}'
FRAME = bytes([0x81, 0x80 | len(SUBSCRIBE)]) + bytes(4) + SUBSCRIBE

FINE = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "OUT_OF_RANGE"}


@pytest.fixture(scope="module")
def user(exchange: Exchange) -> Iterator[User]:
    """Somebody who trades; in the end the exchange still serves, and no daemon has logged an error."""
    yield exchange.join()
    assert exchange.is_ready()
    for name, daemon in exchange.daemons.items():
        assert daemon.running
        text = daemon.program.log.read_text()
        failures = [line for line in text.splitlines() if re.search(r'"level": "(error|critical)"', line)]
        assert not failures, f"{name}: {failures[:3]}"
        assert "Traceback" not in text, f"{name}: {text[-4000:]}"


def said_to(exchange: Exchange, data: bytes) -> bytes:
    """All that comes back for these bytes and a FIN."""
    heard = b""
    with socket.create_connection(("127.0.0.1", exchange.ports.gateway), PATIENCE_S) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while part := sock.recv(65536):
                heard += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # It hung up before it had read everything.
    return heard


@QUICK
@given(ANY | SHAPED | st.sampled_from(REQUESTS).flatmap(damaged))
def test_http(exchange: Exchange, user: User, data: bytes) -> None:
    heard = said_to(exchange, data)
    for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", heard):
        assert int(status) < 500, heard
    assert not heard or heard.startswith(b"HTTP/1.1 "), heard


@QUICK
@given(st.lists(ANY | damaged(FRAME) | st.just(FRAME), max_size=3).map(b"".join))
def test_websocket_frames(exchange: Exchange, user: User, data: bytes) -> None:
    heard = said_to(exchange, UPGRADE + data)
    assert heard.startswith(b"HTTP/1.1 101 "), heard


TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
ANSWERS = {"error", "pong", "subscribed", "unsubscribed"}


@QUICK
@given(st.lists(TEXTS | (JSONS | MESSAGES).map(json.dumps), max_size=5))
def test_websocket_messages(exchange: Exchange, user: User, texts: list[str]) -> None:
    with connect(exchange.ws_url, proxy=None) as opened:
        for text in [*texts, '{"op": "ping", "id": "the last"}']:
            opened.send(text)
        while (frame := json.loads(opened.recv(PATIENCE_S))) != {"op": "pong", "id": "the last"}:
            assert frame.get("op") in ANSWERS or frame["channel"] == "trades:BTC-USD"


ORDER = pb.NewOrder(symbol="BTC-USD", side=ty.SIDE_BUY, type=ty.ORDER_TYPE_LIMIT, price_ticks=1, qty_lots=-1)
MESSAGE = pb.SubmitBatchRequest(orders=[ORDER, ORDER]).SerializeToString()


@pytest.mark.parametrize("service", ["Orders", "MarketData"])
@QUICK
@given(st.data())
def test_grpc(exchange: Exchange, user: User, service: str, data: st.DataObject) -> None:
    names = [name for name in GRPC if name.startswith(service + ".")]
    method = METHODS[data.draw(st.sampled_from(names))]
    body = data.draw(ANY | damaged(MESSAGE))
    address = exchange.orders_address if service == "Orders" else exchange.market_data_address
    path = f"/{method.containing_service.full_name}/{method.name}"
    options: Any = {"metadata": tuple(bearer(user.token).items()), "timeout": PATIENCE_S}
    opened: Any = grpc.insecure_channel(address)
    with opened as channel:
        try:
            if method.client_streaming:
                next(iter(channel.stream_stream(path)(iter([body]), **options)), None)
            elif method.server_streaming:
                next(iter(channel.unary_stream(path)(body, **options)), None)
            else:
                channel.unary_unary(path)(body, **options)
        except grpc.RpcError as error:
            ended: Any = error
            assert ended.code().name in FINE, ended
