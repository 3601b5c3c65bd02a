"""What is done with the records of each topic: decode, look the market up, apply, publish.

Decoding and looking up may wait; applying and publishing never do, so that nobody sees a market between
the two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time_ns

import anyio

from common.core.messages import BookUpdate
from common.core.views import PublicTrade
from common.kafka import Record
from common.wire import Undecodable, decode_book, decode_order_updates, decode_trades
from daemons.market_data import metrics
from daemons.market_data.channels import MarketChannels
from daemons.market_data.feed import Fence
from daemons.market_data.follow import EVERYTHING
from daemons.market_data.markets import Markets
from daemons.market_data.private import PrivateDesk
from exchange.v1 import market_data_pb2

BACK = 2_048  # Records before the end where reading starts; every market's full book comes more often.
STALE_S = 1.0
MAX_STALE_S = 60.0


@dataclass(slots=True)
class _Patience:
    """How long the stale books of a partition are waited for before its topic is read again."""

    back: int = EVERYTHING
    wait_s: float = STALE_S
    asked_s: float = 0.0


class Events:
    """Carries Kafka's records to the feeds of the markets and to the private channels."""

    def __init__(
        self,
        markets: Markets,
        private: PrivateDesk,
        on_trades: Callable[[int], None] = lambda _partition: None,
    ) -> None:
        self._markets = markets
        self._private = private
        self._on_trades = on_trades
        self._book_fences: dict[int, Fence] = {}
        self._trade_fences: dict[int, Fence] = {}
        self._patience: dict[int, _Patience] = {}

    async def take_books(self, partition: int, records: Sequence[Record]) -> None:
        fence = self._book_fences.setdefault(partition, Fence("orderbook"))
        found: list[tuple[MarketChannels, BookUpdate, int]] = []
        for record in records:
            if not fence.admits(record.token):
                continue
            try:
                update = decode_book(record.value)
            except Undecodable:
                metrics.undecodable.labels("orderbook").inc()
                continue
            channels = await self._markets.learn(update.market_id)
            if channels is not None:
                found.append((channels, update, record.token))
        now_s = anyio.current_time()
        for channels, update, token in found:
            channels.feed.apply_book(update, token, now_s)
        if found:
            metrics.event_age.labels("orderbook").observe(_age_s(found[-1][1].time_us))
        for channels in {id(channels): channels for channels, _, _ in found}.values():
            self._markets.publish(channels, now_s)

    async def take_trades(self, partition: int, records: Sequence[Record]) -> None:
        fence = self._trade_fences.setdefault(partition, Fence("trades"))
        found: dict[int, tuple[MarketChannels, list[PublicTrade]]] = {}
        for record in records:
            if not fence.admits(record.token):
                continue
            try:
                batch = decode_trades(record.value)
            except Undecodable:
                metrics.undecodable.labels("trades").inc()
                continue
            for raw in batch.trades:
                channels = await self._markets.learn(raw.market_id)
                if channels is not None:
                    found.setdefault(raw.market_id, (channels, []))[1].append(_trade(raw))
        now_s = anyio.current_time()
        for channels, trades in found.values():
            channels.feed.apply_trades(trades, now_s)
            self._markets.publish(channels, now_s)
            metrics.event_age.labels("trades").observe(_age_s(trades[-1].time_us))
        if found:
            self._on_trades(partition)

    async def take_order_updates(self, _partition: int, records: Sequence[Record]) -> None:
        """No fence here: what TX2 made durable stays true, whoever tells it; repeats go by sequence."""
        for record in records:
            try:
                updates = decode_order_updates(record.value)
            except Undecodable:
                metrics.undecodable.labels("order_updates").inc()
                continue
            for market_id in {update.state.market_id for update in updates.orders}:
                await self._markets.learn(market_id)
            metrics.event_age.labels("order_updates").observe(_age_s(updates.time_us))
            self._private.take(updates)

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
