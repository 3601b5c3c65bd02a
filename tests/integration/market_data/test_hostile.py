"""Clients that misbehave: they are refused or closed with a reason, and nobody else notices."""

import base64
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import anyio
import pytest
from anyio.abc import SocketStream
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from tests.integration.market_data.stand import BTC, Client, Stand

pytestmark = pytest.mark.anyio

UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)


async def raw(stand: Stand) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", stand.settings.market_data_ws_port)


def upgrade(path: bytes = b"/ws") -> bytes:
    return UPGRADE % (path, base64.b64encode(os.urandom(16)))


def masked(payload: bytes, first: int = 0x81) -> bytes:
    """A client's frame with a mask of zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else bytes((0x80 | 127,)) + size.to_bytes(8, "big")
    return bytes((first,)) + length + bytes(4) + payload


async def test_bad_requests_are_answered_and_change_nothing(stand: Stand) -> None:
    async with stand.daemon(), stand.client() as client:
        for text, code in (
            ("{", "MALFORMED"),
            ("[]", "MALFORMED"),
            ('{"op": "dance"}', "MALFORMED"),
            ('{"op": "subscribe", "channels": "trades:BTC-USD"}', "MALFORMED"),
            ('{"op": "subscribe", "channels": []}', "MALFORMED"),
            ('{"op": "ping", "user_id": 1}', "MALFORMED"),
            ("[" * 5_000, "MALFORMED"),
            ('{"op": "subscribe", "channels": ["trades:DOGE-USD"]}', "UNKNOWN_SYMBOL"),
            ('{"op": "subscribe", "channels": ["candy:BTC-USD"]}', "UNKNOWN_CHANNEL"),
            ('{"op": "subscribe", "channels": ["klines:BTC-USD:2m"]}', "UNKNOWN_CHANNEL"),
            ('{"op": "unsubscribe", "channels": [""]}', "UNKNOWN_CHANNEL"),
        ):
            await client.socket.send(text)
            answer = await client.next(op=None)
            assert (answer["op"], answer["error"]["code"], answer["id"]) == ("error", code, None), text
        assert await client.ask(op="ping", id="still here") == {"op": "pong", "id": "still here"}
        await client.socket.send('{"op": "dance", "id": 5}')
        assert (await client.next(op=None))["id"] == 5


async def test_one_bad_channel_refuses_the_whole_request(stand: Stand) -> None:
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        answer = await client.ask(op="subscribe", channels=["depth:BTC-USD", "depth:NO-NO"])
        assert answer["op"] == "error"
        await client.quiet("depth:BTC-USD", 0.2)
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")
        assert (await client.ask(op="unsubscribe", channels=["depth:BTC-USD"]))["op"] == "unsubscribed"
        await stand.book(bids=[(1, 2)])
        await client.quiet("depth:BTC-USD", 0.3)


async def test_subscriptions_of_a_connection_are_limited(stand: Stand) -> None:
    stand.orders.markets = [
        replace(BTC, market_id=number, symbol=f"M{number}-USD") for number in range(1, 110)
    ]
    async with stand.daemon(), stand.client() as client:
        names = [f"{kind}:M{number}-USD" for kind in ("trades", "ticker") for number in range(1, 102)]
        assert (await client.ask(op="subscribe", channels=names))["error"]["code"] == "TOO_MANY_SUBSCRIPTIONS"
        assert (await client.ask(op="subscribe", channels=names[:200]))["op"] == "subscribed"
        assert (await client.ask(op="subscribe", channels=names[:200]))["op"] == "subscribed"
        assert (await client.ask(op="subscribe", channels=names[200:201]))["op"] == "error"


async def test_who_says_too_much_at_once_is_closed_and_the_others_do_not_notice(stand: Stand) -> None:
    await stand.book(full=True, bids=[(1, 1)])
    many = ["depth:BTC-USD", "trades:BTC-USD", "ticker:BTC-USD"]
    again = json.dumps({"op": "subscribe", "channels": many}).encode()
    async with stand.daemon(), stand.client() as good:
        await good.subscribe("depth:BTC-USD")
        await good.next("depth:BTC-USD")
        for flood in (masked(b'{"op": "ping"}'), masked(b"", first=0x89), masked(again)):
            async with await raw(stand) as stream:
                await stream.send(upgrade() + flood * 400)
                read = bytearray()
                with anyio.fail_after(10), pytest.raises(anyio.EndOfStream):
                    await _read_all(stream, read)
            close = bytes(read).rpartition(b"too many messages")[0]
            assert close.endswith((1008).to_bytes(2, "big"))
        sequence = await stand.book(bids=[(1, 2)])
        assert (await good.next("depth:BTC-USD"))["sequence"] == sequence
        for number in range(200):  # A busy but sane client.
            assert (await good.ask(op="ping", id=number))["op"] == "pong"


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (masked(b'"' + b"x" * 70_000 + b'"'), 1009),
        (masked(b"\x00\x01", first=0x82), 1003),
        (masked(b"\xff\xfe"), 1007),
        (masked(b"", first=0x83), 1002),
        (b"\x81\x01x", 1002),  # Not masked.
    ],
)
async def test_bad_frames_close_the_connection_with_their_code(stand: Stand, frame: bytes, code: int) -> None:
    async with stand.daemon(), await raw(stand) as stream:
        await stream.send(upgrade() + frame)
        read = bytearray()
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            await _read_all(stream, read)
        assert read.startswith(b"HTTP/1.1 101 ")
        close = bytes(read).partition(b"\r\n\r\n")[2]
        assert (close[0], int.from_bytes(close[2:4], "big")) == (0x88, code)


async def test_half_an_upgrade_and_silence_end_at_their_deadline(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemons.market_data.ws.HANDSHAKE_S", 0.3)
    await stand.book(full=True, bids=[(1, 1)])
    async with stand.daemon(), stand.client() as client:
        for start in (b"", upgrade()[:40]):
            async with await raw(stand) as stream:
                if start:
                    await stream.send(start)
                with anyio.fail_after(3), pytest.raises(anyio.EndOfStream):
                    await stream.receive()
        await client.subscribe("depth:BTC-USD")
        await client.next("depth:BTC-USD")


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (upgrade(b"/other"), 404),
        (b"POST /ws HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01 not http\r\n\r\n", 400),
        (upgrade().replace(b": 13", b": 8"), 426),
        (b"GET /ws HTTP/1.1\r\nX: " + b"x" * 20_000, 431),
    ],
)
async def test_what_is_no_upgrade_is_refused(stand: Stand, request_head: bytes, status: int) -> None:
    async with stand.daemon(), await raw(stand) as stream:
        await stream.send(request_head)
        with anyio.fail_after(5):
            assert (await stream.receive()).startswith(b"HTTP/1.1 %d " % status)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow reader reads again in the end, however long the fast one takes on a busy machine."""
    monkeypatch.setattr("daemons.market_data.connection.SEND_S", 60.0)
    monkeypatch.setattr("daemons.market_data.outbox.LAST_WORDS_S", 60.0)


@pytest.mark.usefixtures("patience")
async def test_a_reader_who_stops_is_closed_with_1013_and_the_others_do_not_notice(stand: Stand) -> None:
    await stand.book(full=True)
    async with stand.daemon(), stand.client() as good, slow_reader(stand, "trades:BTC-USD") as slow:
        await good.subscribe("trades:BTC-USD")
        await good.next("trades:BTC-USD")
        got = 0
        sent = 0
        for _ in range(60):
            trades = [stand.next_trade() for _ in range(400)]
            await stand.trades(*trades)
            sent += 400
            while got < sent:
                message = await good.next("trades:BTC-USD")
                assert message["previous"] == got
                got = message["sequence"]
        with anyio.fail_after(30):
            assert await closing(slow) == (1013, "too slow for trades:BTC-USD")


async def test_a_peer_that_never_reads_is_dropped(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.market_data.connection.SEND_S", 0.2)
    wide = [(price, 1) for price in range(1, 60_000)]
    await stand.book(full=True, bids=wide)
    async with (
        stand.daemon(),
        stand.client(max_size=None) as good,
        slow_reader(stand, "depth:BTC-USD") as slow,
    ):
        with anyio.fail_after(10):
            await slow.socket.wait_closed()
        await good.subscribe("depth:BTC-USD")
        assert len((await good.next("depth:BTC-USD"))["data"]["bids"]) == len(wide)


async def test_a_silent_peer_is_asked_and_then_dropped(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.market_data.connection.PING_S", 0.2)
    async with stand.daemon(), await raw(stand) as stream:
        await stream.send(upgrade())
        read = bytearray()
        with anyio.fail_after(5), pytest.raises(anyio.EndOfStream):
            await _read_all(stream, read)
        frames = bytes(read).partition(b"\r\n\r\n")[2]
        assert frames[:2] == b"\x89\x00"  # A ping without content.
        assert int.from_bytes(frames[4:6], "big") == 1008


async def _read_all(stream: SocketStream, read: bytearray) -> None:
    while True:
        read += await stream.receive()


@pytest.mark.usefixtures("patience")
async def test_a_slow_reader_of_depth_gets_one_merged_update(stand: Stand) -> None:
    await stand.book(full=True, bids=[(number, 1) for number in range(1, 200)])
    async with stand.daemon(), stand.client() as good, slow_reader(stand, "depth:BTC-USD") as slow:
        await good.subscribe("depth:BTC-USD")
        last = (await good.next("depth:BTC-USD"))["sequence"]
        wide = range(1, 1_500)
        for round_ in range(2, 130):
            sequence = await stand.book(bids=[(price, round_) for price in wide])
            while last < sequence:
                message = await good.next("depth:BTC-USD")
                assert message["previous"] == last
                last = message["sequence"]
        book: dict[str, str] = {}
        seen = 0
        count = 0
        with anyio.fail_after(30):
            while seen < last:
                message = await slow.next("depth:BTC-USD")
                if message["type"] == "snapshot":
                    book = {}
                else:
                    assert message["previous"] == seen
                seen = message["sequence"]
                count += 1
                book.update(message["data"]["bids"])
        assert count < 100  # Of the 129 that the other one got.
        assert len(book) == len(wide)
        assert set(book.values()) == {"0.00129"}


@asynccontextmanager
async def slow_reader(stand: Stand, channel: str) -> AsyncIterator[Client]:
    """A client that has subscribed, and reads what is sent only when it is asked to."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    plain.connect(("127.0.0.1", stand.settings.market_data_ws_port))
    plain.setblocking(False)
    async with stand.client(sock=plain, max_queue=1, ping_interval=None) as client:
        await client.subscribe(channel)
        yield client


async def closing(client: Client) -> tuple[int, str]:
    """Read to the end: the code and reason of the close."""
    while client.socket.state is State.OPEN:
        with suppress(ConnectionClosed):
            await client.socket.recv()
    await client.socket.wait_closed()
    assert client.socket.close_code is not None
    return client.socket.close_code, client.socket.close_reason or ""
