"""What is done with the records of each topic: read, look the market up, apply, publish.

Reading and looking up may wait; applying and publishing never do, so that nobody sees a market between
the two. A record that cannot be used goes to the dead letters, and before the fence: whoever wrote it, its
token must not silence the leader.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import TypeVar

import anyio

from common.core.messages import BookUpdate
from common.core.views import PublicTrade
from common.kafka_reader import Record
from daemons.market_data import metrics
from daemons.market_data.channels import MarketChannels
from daemons.market_data.dead_letters import DeadLetters
from daemons.market_data.feed import Fence
from daemons.market_data.follow import EVERYTHING
from daemons.market_data.markets import Markets
from daemons.market_data.private import PrivateDesk
from daemons.market_data.records import check_orders, open_order_updates, read_book, read_trades
from daemons.market_data.turns import Place
from exchange.v1 import internal_pb2, market_data_pb2

BACK = 2_048  # Records before the end where reading starts; every market's full book comes more often.
NO_OFFSET = -1  # Of what did not come from Kafka.
STALE_S = 1.0
MAX_STALE_S = 60.0

T = TypeVar("T")


@dataclass(slots=True)
class _Patience:
    """How long the stale books of a partition are waited for before its topic is read again."""

    back: int = EVERYTHING
    wait_s: float = STALE_S
    asked_s: float = 0.0


class Events:
    """Carries Kafka's records to the feeds of the markets and to the private channels; to these also what
    the settlers tell.

    `on_settled_trades` hears of each partition that has new trades in PostgreSQL. Order updates tell it, not
    exchange.trades: that topic is written before TX2, and who looks then finds nothing and falls asleep.
    """

    def __init__(
        self,
        markets: Markets,
        private: PrivateDesk,
        dead: DeadLetters,
        on_settled_trades: Callable[[int], None] = lambda _partition: None,
    ) -> None:
        self._markets = markets
        self._private = private
        self._dead = dead
        self._on_settled_trades = on_settled_trades
        self._book_fences: dict[int, Fence] = {}
        self._trade_fences: dict[int, Fence] = {}
        self._patience: dict[int, _Patience] = {}

    async def take_books(self, partition: int, records: Sequence[Record]) -> None:
        fence = self._book_fences.setdefault(partition, Fence("orderbook"))
        found: list[tuple[MarketChannels, BookUpdate, Record]] = []
        for record in records:
            update = self._read("orderbook", partition, record, read_book)
            if update is None or not fence.admits(record.token):
                continue
            channels = await self._markets.learn(update.market_id)
            if channels is not None:
                found.append((channels, update, record))
        now_s = anyio.current_time()
        for channels, update, record in found:
            channels.feed.apply_book(update, record.token, now_s)
        if found:
            metrics.event_age.labels("orderbook").observe(_age_s(found[-1][1].time_us))
        for channels in {id(channels): channels for channels, _, _ in found}.values():
            self._markets.publish(channels, now_s)

    async def take_trades(self, partition: int, records: Sequence[Record]) -> None:
        fence = self._trade_fences.setdefault(partition, Fence("trades"))
        found: dict[int, tuple[MarketChannels, list[PublicTrade]]] = {}
        for record in records:
            batch = self._read("trades", partition, record, read_trades)
            if batch is None or not fence.admits(record.token):
                continue
            for raw in batch.trades:
                if raw.market_id not in found:
                    channels = await self._markets.learn(raw.market_id)
                    if channels is None:
                        continue
                    found[raw.market_id] = channels, []
                found[raw.market_id][1].append(_trade(raw))
        now_s = anyio.current_time()
        for channels, trades in found.values():
            channels.feed.apply_trades(trades, now_s)
            self._markets.publish(channels, now_s)
            metrics.event_age.labels("trades").observe(_age_s(trades[-1].time_us))

    async def take_order_updates(self, partition: int, records: Sequence[Record]) -> None:
        """No fence here: what TX2 made durable stays true, whoever tells it; repeats go by sequence."""
        for record in records:
            await self._take_order_updates(partition, record, None)

    async def take_told(self, told: Sequence[internal_pb2.Told]) -> None:
        """Records of the same topic from the settler itself, ahead of Kafka or behind it."""
        for one in told:
            record = Record(NO_OFFSET, one.updates, 0, NO_OFFSET)
            after = one.after_sequence, one.after_order_id
            result = await self._take_order_updates(one.partition, record, after)
            metrics.told_directly.labels(result).inc()

    async def _take_order_updates(self, partition: int, record: Record, after: Place | None) -> str:
        """What became of it, in a word."""
        updates = self._read("order_updates", partition, record, open_order_updates)
        if updates is None:
            return "unusable"
        if self._private.has_seen(updates):
            metrics.repeats.labels("order_updates").inc()
            return "repeated"
        if self._read("order_updates", partition, record, lambda *_: check_orders(updates)) is None:
            return "unusable"
        for market_id in {update.state.market_id for update in updates.orders}:
            await self._markets.learn(market_id)
        metrics.event_age.labels("order_updates").observe(_age_s(updates.time_us))
        if any(update.fills for update in updates.orders):
            self._on_settled_trades(partition)
        try:
            taken = self._private.take(updates, after)
        except Exception as error:  # Whatever it is that cannot be shown, others must go on.
            self._dead.put("order_updates", partition, record, repr(error))
            return "unusable"
        return "taken" if taken else "held"

    def _read(self, kind: str, partition: int, record: Record, read: Callable[[int, bytes], T]) -> T | None:
        try:
            return read(partition, record.value)
        except ValueError as error:
            self._dead.put(kind, partition, record, str(error))
            return None

    def go_back(self, partition: int) -> int | None:
        """How far to read the order book again, in records: some market of the partition has no whole book.

        A book that was whole and has a gap: as far as at a start, then to the earliest record; one that
        a start did not find: to the earliest at once. Then with growing patience, since the leader's next
        full book may come first.
        """
        now_s = anyio.current_time()
        if all(channels.feed.depth.synced for channels in self._markets.of_partition(partition)):
            self._patience[partition] = _Patience(BACK, asked_s=now_s)
            return None
        patience = self._patience.setdefault(partition, _Patience())
        if now_s - patience.asked_s < patience.wait_s:
            return None
        back = patience.back
        self._patience[partition] = _Patience(EVERYTHING, min(patience.wait_s * 2, MAX_STALE_S), now_s)
        # Older leaders are heard again, in their order; what they say of whole books changes nothing.
        self._book_fences.pop(partition, None)
        return back


def _trade(raw: market_data_pb2.PublicTrade) -> PublicTrade:
    """A plain value: read many times, it is cheaper than the message."""
    return PublicTrade(
        raw.market_id, raw.trade_id, raw.price_ticks, raw.qty_lots, raw.taker_side, raw.time_us
    )


def _age_s(time_us: int) -> float:
    return max(0.0, time_ns() / 1e9 - time_us / 1e6)
