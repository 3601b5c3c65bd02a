"""`python -m bench.fanout_feed`: market-data's fan-out alone, fed by a metronome instead of Kafka.

The real readers of records, feeds, channels and WebSocket server; no order-service, PostgreSQL or Redis.
It prints its port, waits for a line, feeds, and prints as JSON when each update came in (monotonic seconds,
by sequence or trade id) and what that cost.
"""

import json
import resource
import sys
import time
from functools import partial

import anyio

from common.config import Settings
from common.core.messages import BookUpdate, Market, Side, Trade
from common.health import Health
from common.identity.kept import Kept
from common.identity.signed import SignedRequests
from common.identity.window import LocalReplays, Window
from common.kafka import producer
from common.kafka_reader import Record
from common.supervise import calm_collector
from common.topics import topics
from common.wire import encode_book, encode_trades
from daemons.local.prepare import default_markets
from daemons.market_data import metrics
from daemons.market_data.dead_letters import DeadLetters
from daemons.market_data.desk import FrontDesk
from daemons.market_data.directory import Directory
from daemons.market_data.events import Events
from daemons.market_data.feed import History
from daemons.market_data.identities import Identities
from daemons.market_data.markets import Markets
from daemons.market_data.orders_client import OrdersClient, orders_client
from daemons.market_data.private import PrivateDesk
from daemons.market_data.ws import serve_websockets

MARKET = default_markets(1)[0]
LEVELS = 100  # On each side.
CHANGED = 3  # Levels in each update.
MID_TICKS = 5_000_000
MAX_CLIENTS = 20_000


class OneMarket(OrdersClient):
    """order-service as far as it is asked for here."""

    async def markets(self) -> list[Market]:
        return [MARKET]


async def main(updates_per_s: int, seconds: float) -> None:
    """Every second update of the book comes with a trade, as when orders and sweeps take turns."""
    settings = Settings()
    async with orders_client("127.0.0.1:1") as nobody, anyio.create_task_group() as group:
        source = OneMarket.__new__(OneMarket)
        directory = Directory(source, Health())
        markets = Markets(directory)
        private = PrivateDesk(nobody, directory)
        window = Window(settings.receive_window_ms)
        signed = SignedRequests(Kept(nobody.find_key, settings.token_cache_s), window, LocalReplays(window))
        identities = Identities(nobody, signed, settings.token_cache_s)
        events = Events(markets, private, DeadLetters(topics(settings), partial(producer, settings)))
        group.start_soon(directory.run)
        group.start_soon(markets.run)
        channels = await markets.learn(MARKET.market_id)
        assert channels is not None
        channels.feed.seed(History(), anyio.current_time())
        channels.seeded()
        await events.take_books(0, [Record(0, _book(1, full=True), 1, -1)])
        desk = FrontDesk(markets, private, identities)
        async with serve_websockets(desk, "127.0.0.1", 0, MAX_CLIENTS) as port:
            print(port, flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            calm_collector()
            print(json.dumps(await _feed(events, updates_per_s, int(seconds * updates_per_s))), flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            group.cancel_scope.cancel()


async def _feed(events: Events, updates_per_s: int, count: int) -> dict[str, object]:
    """Each update is due at its own moment; one that is late makes no other late."""
    books = [_book(sequence) for sequence in range(2, count + 2)]
    trades = [_trade(trade_id) for trade_id in range(1, count // 2 + 1)]
    came_s: dict[str, list[float]] = {"depth": [], "trades": []}
    used_s, encoded = _cpu_s(), metrics.frames_encoded._value.get()
    begin_s = time.monotonic()
    for number in range(count):
        await anyio.sleep(max(0.0, begin_s + number / updates_per_s - time.monotonic()))
        came_s["depth"].append(time.monotonic())
        await events.take_books(0, [Record(number, books[number], 1, -1)])
        if number % 2:
            came_s["trades"].append(time.monotonic())
            await events.take_trades(0, [Record(number, trades[number // 2], 1, -1)])
    took_s = time.monotonic() - begin_s
    used_s = _cpu_s() - used_s
    return came_s | {
        "took_s": took_s,
        "cpu_s": used_s,
        "encoded": metrics.frames_encoded._value.get() - encoded,
    }


def _book(sequence: int, *, full: bool = False) -> bytes:
    """The whole book, or an update that changes a few levels near the top."""
    depths = range(1, LEVELS + 1) if full else [(sequence * 7 + step) % 20 + 1 for step in range(CHANGED)]
    sides = [[(MID_TICKS + way * depth, 1 + sequence % 1_000) for depth in depths] for way in (-1, 1)]
    bids, asks = (sides[0], sides[1]) if full else (sides[0], []) if sequence % 2 else ([], sides[1])
    previous = 0 if full else sequence - 1
    return encode_book(BookUpdate(MARKET.market_id, full, sequence, previous, 0, bids, asks, _now_us()))


def _trade(trade_id: int) -> bytes:
    trade = Trade(
        MARKET.market_id,
        trade_id,
        trade_id,
        MID_TICKS + trade_id % 7,
        1 + trade_id % 1_000,
        Side.BUY,
        maker_order_id=1,
        taker_order_id=2,
        maker_user_id=1,
        taker_user_id=2,
        maker_fee_atoms=0,
        taker_fee_atoms=0,
    )
    return encode_trades(partition=0, last_sequence=trade_id, trades=[trade], time_us=_now_us())


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _now_us() -> int:
    return time.time_ns() // 1_000


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), float(sys.argv[2]), backend_options={"use_uvloop": True})
