"""The stream against a server that says what the test wants, on both event loops."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import anyio
import msgspec
import pytest
import wsproto.events as ws
from anyio.abc import SocketStream

from exchange_client import (
    DepthEvent,
    Event,
    Exchange,
    OutOfSync,
    SlowConsumer,
    Stream,
    Subscription,
    Token,
    TradesEvent,
    Unauthenticated,
    UnknownSymbol,
    session,
    websocket,
)
from tests.unit.clients.scripted import Door, Json, Peer, scripted_websocket, serving

pytestmark = pytest.mark.anyio

BIDS: Json = {"bids": [["10", "1"], ["9", "2"]], "asks": []}
NAME = "depth:BTC-USD"


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with scripted_websocket() as door:
        yield door


@asynccontextmanager
async def streaming(door: Door, token: str = "") -> AsyncIterator[Stream]:
    with anyio.fail_after(20):
        async with (
            Exchange(door.url, Token(token) if token else None) as exchange,
            exchange.stream() as stream,
        ):
            yield stream


async def subscribed(peer: Peer, *channels: str) -> Json:
    """The client asks for exactly these, and is told so."""
    said = await peer.hear()
    assert (said["op"], said["channels"]) == ("subscribe", list(channels))
    await peer.say(op="subscribed", channels=channels, id=said["id"])
    return said


async def signed_in(peer: Peer) -> None:
    said = await peer.hear()
    assert (said["op"], said["token"]) == ("auth", "t")
    await peer.say(op="authenticated", user_id="1", id=said["id"])


async def follows(subscription: Subscription, *sequences: int) -> list[Event]:
    events = [await anext(subscription) for _ in sequences]
    assert [event.sequence for event in events] == list(sequences)
    return events


async def test_a_book_is_kept_in_step(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        book = stream.book("BTC-USD")
        with pytest.raises(OutOfSync):
            book.bids()
        await subscribed(peer, NAME)
        await peer.tell(NAME, BIDS, 5)
        await book.ready()
        assert [str(level.price) for level in book.bids()] == ["10", "9"]
        await peer.tell(NAME, {"bids": [["10", "0"]], "asks": [["11", "3"]]}, 8, previous=5)
        await book.changed(1)
        assert (book.sequence, book.mid) == (8, Decimal(10))
        assert stream.book("BTC-USD") is book


async def test_a_gap_begins_again_with_a_snapshot(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        subscription = stream.subscribe(NAME)
        book = stream.book("BTC-USD")
        await subscribed(peer, NAME)
        assert (await peer.hear())["op"] == "unsubscribe"  # The book, which came later, wants a snapshot.
        await subscribed(peer, NAME)
        await peer.tell(NAME, BIDS, 5)
        await peer.tell(NAME, {"bids": [["10", "9"]], "asks": []}, 9, previous=7)  # 5 to 7 is missing.
        assert (await peer.hear())["channels"] == [NAME]
        assert not book.synced
        await subscribed(peer, NAME)
        await peer.tell(NAME, {"bids": [["10", "8"]], "asks": []}, 10, previous=9)  # Not before a snapshot.
        await peer.tell(NAME, BIDS, 11)
        _, again = await follows(subscription, 5, 11)
        assert isinstance(again, DepthEvent)
        assert again.snapshot
        assert book.synced


async def test_a_lost_connection_comes_back_with_all_channels(door: Door) -> None:
    async with streaming(door) as stream:
        subscription = stream.subscribe(NAME, "trades:BTC-USD")
        book = stream.book("BTC-USD")
        async with door.next() as peer:
            await subscribed(peer, NAME, "trades:BTC-USD")
            await peer.tell(NAME, BIDS, 5)
            await follows(subscription, 5)
        await book.changed(1)
        assert not book.synced
        async with door.next() as peer:
            await subscribed(peer, NAME, "trades:BTC-USD")
            await peer.tell(NAME, BIDS, 3)  # Another server, another count.
            await peer.tell("trades:BTC-USD", [], 0)
            await follows(subscription, 3, 0)
            assert book.synced
            assert (stream.connections, stream.connected) == (2, True)


async def test_private_channels_come_after_signing_in(door: Door) -> None:
    async with streaming(door, "t") as stream, door.next() as peer:
        subscription = stream.subscribe("balances", NAME)
        await subscribed(peer, NAME)
        await signed_in(peer)
        await subscribed(peer, "balances")
        await peer.tell("balances", [{"asset": "USD", "available": "1.50", "held": "0"}], 1)
        [event] = await follows(subscription, 1)
        assert msgspec.to_builtins(event)["balances"][0]["available"] == "1.50"
        # The exchange ends the identity: it is tried anew.
        await peer.refuse({}, "UNAUTHENTICATED")
        await signed_in(peer)
        await subscribed(peer, "balances")
        await peer.tell("balances", [], 1)
        await follows(subscription, 1)


@pytest.mark.parametrize("private", [("balances",), ("orders", "fills", "balances")])
async def test_who_is_not_known_is_told_and_the_public_channels_go_on(
    door: Door, private: tuple[str, ...]
) -> None:
    async with streaming(door, "t") as stream, door.next() as peer:
        own, public = stream.subscribe(*private), stream.subscribe("trades:X")
        said = [await peer.hear(), await peer.hear()]
        auth = next(one for one in said if one["op"] == "auth")
        await peer.refuse(auth, "UNAUTHENTICATED")
        with pytest.raises(Unauthenticated):
            await anext(own)
        await peer.tell("trades:X", [], 4)
        await follows(public, 4)


async def test_what_takes_long_over_http_does_not_stop_the_stream(door: Door) -> None:
    async with streaming(door, "t") as stream, door.next() as peer:
        subscription = stream.subscribe("orders", "trades:X")
        await subscribed(peer, "trades:X")
        await signed_in(peer)
        await subscribed(peer, "orders")
        await peer.tell("orders", [], 1)  # With the first one, the time is asked for; the door is silent.
        await peer.tell("orders", [], 2, 1)
        await peer.tell("trades:X", [], 4)
        await follows(subscription, 4)


async def test_a_late_signature_is_made_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LATER_S", 0.01)
    async with streaming(door, "t") as stream, door.next() as peer:
        subscription = stream.subscribe("balances")
        await peer.refuse(await peer.hear(), "TIMESTAMP_OUTSIDE_WINDOW")
        await signed_in(peer)
        await subscribed(peer, "balances")
        await peer.tell("balances", [], 1)
        await follows(subscription, 1)


async def test_one_wrong_channel_spoils_no_other(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        wrong, right = stream.subscribe("trades:X", "trades:WRONG"), stream.subscribe("trades:Y")
        book = stream.book("WRONG")
        said = [await peer.hear() for _ in range(3)]
        assert [one["channels"] for one in said] == [
            ["trades:X", "trades:WRONG"],
            ["trades:Y"],
            ["depth:WRONG"],
        ]
        await peer.say(op="subscribed", channels=["trades:Y"], id=said[1]["id"])
        await peer.refuse(said[2], "UNKNOWN_SYMBOL", symbol="WRONG")
        with pytest.raises(UnknownSymbol):
            await book.ready()
        await peer.refuse(said[0], "UNKNOWN_SYMBOL", symbol="WRONG")
        with pytest.raises(UnknownSymbol):
            await anext(wrong)
        await peer.tell("trades:Y", [], 1)
        await follows(right, 1)


@pytest.mark.parametrize("details", [{"symbol": "WRONG"}, {"channel": "trades:WRONG"}, {}])
async def test_after_an_interruption_the_others_are_asked_for_again(
    door: Door, details: dict[str, str]
) -> None:
    async with streaming(door) as stream:
        async with door.next() as peer:
            wrong, right = stream.subscribe("trades:WRONG"), stream.subscribe("trades:X")
            await subscribed(peer, "trades:WRONG")
            await subscribed(peer, "trades:X")
        async with door.next() as peer:  # The market is gone.
            await peer.refuse(await peer.hear(), "UNKNOWN_SYMBOL", **details)
            if not details:  # Nobody is blamed: each is asked for alone.
                await peer.refuse(await peer.hear(), "UNKNOWN_SYMBOL")
            await subscribed(peer, "trades:X")
            with pytest.raises(UnknownSymbol):
                await anext(wrong)
            await peer.tell("trades:X", [], 1)
            await follows(right, 1)


async def test_what_is_away_is_asked_for_again(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LATER_S", 0.01)
    async with streaming(door, "t") as stream, door.next() as peer:
        subscription = stream.subscribe("balances")
        await peer.refuse(await peer.hear(), "UNAVAILABLE")
        await signed_in(peer)
        said = await subscribed(peer, "balances")
        await peer.refuse(said, "UNAVAILABLE", channel="balances")
        await subscribed(peer, "balances")
        await peer.tell("balances", [], 1)
        await follows(subscription, 1)


async def test_a_slow_reader_is_told_and_begins_again(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        slow, quick = stream.subscribe(NAME, limit=2), stream.subscribe(NAME)
        for _ in range(3):
            await peer.hear()  # subscribe; again for the second: unsubscribe, subscribe
        await peer.tell(NAME, BIDS, 1)
        for sequence in range(2, 6):
            await peer.tell(NAME, BIDS, sequence, previous=sequence - 1)
        await follows(quick, 1, 2, 3, 4, 5)
        with pytest.raises(SlowConsumer) as raised:
            await anext(slow)
        assert raised.value.dropped == 5
        assert (await peer.hear())["op"] == "unsubscribe"
        await subscribed(peer, NAME)
        await peer.tell(NAME, BIDS, 6)
        await peer.tell(NAME, BIDS, 7, previous=6)
        for subscription in (slow, quick):
            await follows(subscription, 6, 7)


async def test_who_leaves_is_not_told_any_more(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        with stream.subscribe("trades:X") as subscription:
            await subscribed(peer, "trades:X")
            await peer.tell("trades:X", [], 1)
            await follows(subscription, 1)
        assert (await peer.hear())["op"] == "unsubscribe"
        assert [event async for event in subscription] == []
        await peer.tell("trades:X", [], 2, previous=1)  # It was on its way: passed over.
        other = stream.subscribe("trades:Y")
        await subscribed(peer, "trades:Y")
        await peer.tell("trades:Y", [], 1)
        await follows(other, 1)


async def test_the_end_of_the_stream_ends_the_loops(door: Door) -> None:
    async with streaming(door) as stream, door.next() as peer:
        subscription = stream.subscribe("trades:X")
        await subscribed(peer, "trades:X")
        await peer.tell("trades:X", [], 1)
        await follows(subscription, 1)
    assert [event async for event in subscription] == []


async def test_what_the_body_raises_comes_out_as_it_is(door: Door) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with streaming(door):
            raise KeyError("mine")
    with anyio.move_on_after(0.05) as scope:
        async with streaming(door) as stream:
            await stream.book("X").ready()
    assert scope.cancelled_caught


async def test_frames_come_in_pieces_and_pings_are_answered(door: Door) -> None:
    trade = {"trade_id": "1", "symbol": "X", "price": "10.50", "quantity": "1", "taker_side": "BUY"}
    trade["time"] = "2026-01-02T03:04:05.000006Z"
    message = {"channel": "trades:X", "type": "snapshot", "sequence": 1, "previous": 0, "data": [trade]}
    text = msgspec.json.encode(message).decode()
    async with streaming(door) as stream, door.next() as peer:
        subscription = stream.subscribe("trades:X")
        await subscribed(peer, "trades:X")
        await peer.frame(ws.TextMessage(text[:20], message_finished=False))
        await peer.ping()
        await peer.frame(ws.TextMessage(text[20:]))
        [event] = await follows(subscription, 1)
        assert isinstance(event, TradesEvent)
        assert event.trades[0].price == Decimal("10.50")
        written = msgspec.json.encode(event)
        assert msgspec.json.decode(written, type=Event) == event


@pytest.mark.parametrize("said", ["not json", '{"channel": "depth:BTC-USD", "type": "snapshot", "data": 5}'])
async def test_what_cannot_be_read_is_a_reason_to_begin_again(door: Door, said: str) -> None:
    async with streaming(door) as stream:
        subscription = stream.subscribe(NAME)
        async with door.next() as peer:
            await subscribed(peer, NAME)
            await peer.frame(ws.TextMessage(said))
            await peer.gone()
        async with door.next() as peer:
            await subscribed(peer, NAME)
            await peer.tell(NAME, BIDS, 1)
            await follows(subscription, 1)
        assert "cannot be read" in str(stream.interruption)


async def test_the_reason_of_a_close_is_kept(door: Door) -> None:
    async with streaming(door) as stream:
        async with door.next() as peer:
            await peer.frame(ws.CloseConnection(1013, "too slow"))
            await peer.gone()
        async with door.next():
            assert str(stream.interruption) == "1013 too slow"


async def test_a_silent_peer_is_asked_and_then_left(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PING_S", 0.05)
    monkeypatch.setattr(session, "QUIET_S", 0.6)
    async with streaming(door) as stream:
        async with door.next() as peer:
            assert (await peer.hear())["op"] == "ping"
            await peer.gone()
        async with door.next() as peer:
            assert "nothing was heard" in str(stream.interruption)
            for _ in range(3):
                said = await peer.hear()
                await peer.say(op="pong", id=said["id"])
            assert stream.connections == 2


async def test_who_is_no_websocket_is_asked_again() -> None:
    tries = []

    async def unwilling(stream: SocketStream) -> None:
        tries.append(await stream.receive())
        await stream.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        if len(tries) == 2:
            enough.set()

    enough = anyio.Event()
    async with (
        serving(unwilling) as port,
        Exchange(f"http://127.0.0.1:{port}") as exchange,
        exchange.stream() as stream,
    ):
        with anyio.fail_after(20):
            await enough.wait()
        assert "HTTP 503" in str(stream.interruption)
        assert (stream.connections, stream.connected) == (0, False)


async def test_a_message_beyond_all_bounds_is_not_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_MESSAGE_CHARACTERS", 100)
    async with streaming(door) as stream:
        async with door.next() as peer:
            await peer.frame(ws.TextMessage("x" * 60, message_finished=False))
            await peer.frame(ws.TextMessage("x" * 60, message_finished=False))
            await peer.gone()
        async with door.next():
            assert "too large" in str(stream.interruption)


async def test_asking_for_what_cannot_be_is_an_error_at_once(door: Door) -> None:
    async with streaming(door) as stream:
        with pytest.raises(ValueError, match="name a channel"):
            stream.subscribe()
        with pytest.raises(ValueError, match="credentials"):
            stream.subscribe("orders")
        with pytest.raises(ValueError, match="limit"):
            stream.subscribe("trades:X", limit=0)
