"""What goes past the writers: every client gets whole frames, in order, however little its socket takes."""

import json
import random
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
import wsproto
from anyio.abc import SocketStream

from common.core.messages import Market
from common.health import Health
from daemons.market_data.channels import MarketChannels
from daemons.market_data.connection import Client, Desk
from daemons.market_data.directory import Directory
from daemons.market_data.fanout import AT_ONCE, Fanout
from daemons.market_data.feed import History
from daemons.market_data.markets import Markets
from daemons.market_data.outbox import Outbox
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.daemons.market_data.samples import BTC, change, full, seeded_feed, trade

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Peer:
    """A client's socket that takes what it likes, when it likes; and what has come through it."""

    def __init__(self, order: random.Random) -> None:
        self.read = bytearray()
        self._order = order
        self._sending = False

    async def send(self, chunk: bytes) -> None:
        assert not self._sending
        self._sending = True
        await anyio.sleep(self._order.choice((0, 0, 0.1, 0.5)))
        self.read += chunk
        self._sending = False

    async def send_eof(self) -> None:
        assert not self._sending

    def write_now(self, chunk: bytes) -> int:
        assert not self._sending, "the writer is at work"
        taken = self._order.choice((0, 1, len(chunk) // 2, len(chunk), len(chunk)))
        self.read += chunk[:taken]
        return taken

    def messages(self) -> list[dict[str, Any]]:
        """All that came, which must be whole frames of text."""
        found, rest = [], bytes(self.read)
        while rest:
            assert rest[0] == 0x81
            size, begin = rest[1], 2
            if size >= 126:
                begin = 4 if size == 126 else 10
                size = int.from_bytes(rest[2:begin], "big")
            assert len(rest) >= begin + size
            found.append(json.loads(rest[begin : begin + size]))
            rest = rest[begin + size :]
        return found


def client_of(peer: Peer) -> Client:
    connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    client = Client(cast(SocketStream, peer), connection, b"", cast(Desk, None), "")
    client.outbox.write_now = peer.write_now
    return client


def channels(fanout: Fanout) -> MarketChannels:
    made = MarketChannels(seeded_feed(trade(1)), fanout, now=lambda: 0)
    made.feed.apply_book(full(1, bids=[(10, 1)]), 1, 0.0)
    made.seeded()
    made.publish(0.0)
    return made


async def test_whole_frames_come_in_order_through_every_socket(seed: int) -> None:
    order = random.Random(seed)
    fanout = Fanout()
    market = channels(fanout)
    peers = [Peer(order) for _ in range(6)]
    clients = [client_of(peer) for peer in peers]
    sequence = 1
    async with anyio.create_task_group() as group:
        for client in clients:
            group.start_soon(client._write)
            market.depth.join(client.outbox)
            market.trades.join(client.outbox)
        for _ in range(200):
            if order.random() < 0.8:
                sequence += 1
                bids = [(order.randrange(1, 30), order.randrange(1, 9))]
                market.feed.apply_book(change(sequence, sequence - 1, bids=bids), 1, 0.0)
            if order.random() < 0.5:
                market.feed.apply_trades([trade(market.feed.tape.last_trade_id + 1)], 0.0)
            if order.random() < 0.3:
                order.choice(clients).outbox.reply(b'\x81\x0e{"op": "pong"}')
            market.publish(0.0)
            await fanout.flush()
            if order.random() < 0.3:
                await anyio.sleep(0.05)
        await anyio.sleep(60)
        group.cancel_scope.cancel()
    for peer in peers:
        last = {"depth:BTC-USD": 0, "trades:BTC-USD": 0}
        for message in peer.messages():
            if "op" not in message:
                assert message["previous"] == (
                    0 if message["type"] == "snapshot" else last[message["channel"]]
                )
                last[message["channel"]] = message["sequence"]
        assert last == {"depth:BTC-USD": sequence, "trades:BTC-USD": market.feed.tape.last_trade_id}


async def test_a_close_comes_after_the_rest_of_a_frame() -> None:
    fanout = Fanout()
    market = channels(fanout)
    peer = Peer(random.Random(0))
    client = client_of(peer)
    client.outbox.write_now = lambda chunk: peer.read.extend(chunk[:5]) or 5  # type: ignore[func-returns-value]
    async with anyio.create_task_group() as group:
        market.trades.join(client.outbox)
        client.outbox.take(1 << 20)
        group.start_soon(client.outbox.wait)
        await anyio.wait_all_tasks_blocked()
        market.feed.apply_trades([trade(2)], 0.0)
        market.publish(0.0)
        await fanout.flush()
    client.outbox.close(1013, "too slow")
    await client._write()
    size = int.from_bytes(peer.read[2:4], "big")
    assert json.loads(peer.read[4 : 4 + size])["sequence"] == 2
    assert peer.read[4 + size :] == b"\x88\x0a\x03\xf5too slow"


async def test_every_one_of_many_is_written_and_others_have_their_turn_between() -> None:
    fanout = Fanout()
    market = channels(fanout)
    boxes = [Outbox() for _ in range(3 * AT_ONCE)]
    written: list[bytes] = []
    turns = 0

    async def other() -> None:
        nonlocal turns
        while len(written) < len(boxes):
            turns += 1
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for box in boxes:
            box.write_now = lambda chunk: written.append(chunk) or len(chunk)  # type: ignore[func-returns-value]
            market.depth.join(box)
            box.take(1 << 20)
            group.start_soon(box.wait)
        await anyio.wait_all_tasks_blocked()
        market.feed.apply_book(change(2, 1, bids=[(9, 3)]), 1, 0.0)
        market.publish(0.0)
        group.start_soon(other)
        await fanout.flush()
        assert len(written) == len(boxes)
        assert all(chunk is written[0] for chunk in written)  # Encoded once, copied for nobody.
        group.cancel_scope.cancel()
    assert turns  # How many, Trio leaves to chance.


class TwoMarkets:
    async def markets(self) -> list[Market]:
        return [BTC]


async def test_what_changes_together_is_told_together_and_at_once() -> None:
    directory = Directory(TwoMarkets(), Health())
    markets = Markets(directory)
    async with anyio.create_task_group() as group:
        group.start_soon(directory.run)
        group.start_soon(markets.run)
        market = await markets.learn(BTC.market_id)
        assert market is not None
        market.feed.seed(History(), 0.0)
        market.feed.apply_book(full(1, bids=[(10, 1)]), 1, 0.0)
        markets.publish(market, 0.0)
        await anyio.sleep(0.01)
        outbox = Outbox()
        market.depth.join(outbox)
        assert len(outbox.take(1 << 20)) == 1
        for sequence in (2, 3, 4):
            market.feed.apply_book(change(sequence, sequence - 1, bids=[(sequence, 1)]), 1, 0.0)
            markets.publish(market, 0.0)
        with anyio.fail_after(0.001):
            await outbox.wait()
        (frame,) = outbox.take(1 << 20)
        assert (frame.sequence, frame.previous) == (4, 1)  # type: ignore[union-attr]
        group.cancel_scope.cancel()


async def test_a_snapshot_does_not_run_ahead_of_the_other_listeners() -> None:
    market = channels(Fanout())
    early, late = Outbox(), Outbox()
    for channel in (market.depth, market.trades):
        channel.join(early)
    early.take(1 << 20)
    market.feed.apply_book(change(2, 1, bids=[(9, 3)]), 1, 0.0)  # Neither is published yet.
    market.feed.apply_trades([trade(2)], 0.0)
    for channel in (market.depth, market.trades):
        channel.join(late)
    assert [frame.sequence for frame in late.take(1 << 20)] == [2, 2]  # type: ignore[union-attr]
    market.feed.apply_book(change(3, 2, bids=[(8, 3)]), 1, 0.0)
    market.feed.apply_trades([trade(3)], 0.0)
    market.publish(0.0)
    for box, before in ((early, [2, 2, 3, 3]), (late, [3, 3])):
        assert [frame.sequence for frame in box.take(1 << 20)] == before  # type: ignore[union-attr]
