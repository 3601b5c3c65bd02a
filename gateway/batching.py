"""Concurrent orders share calls to order-service: natural batching, without timers.

While a call is under way, what arrives forms the next batch; an order that comes alone leaves alone and
at once. Several lanes would have several calls under way, a user always taking the same one, so that
their requests stay in the order of their arrival. One lane is what measures best: order-service commits one
group at a time anyway, and smaller batches only cost it (and us) more for each order.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from common.core.errors import Busy, ExchangeError, Unavailable
from common.telemetry import get_logger
from exchange.v1 import internal_pb2 as internal
from exchange.v1 import orders_pb2 as pb
from gateway import metrics

LANES = 1
RATE_SHARE = 0.3  # Of the newest call in the rate of calls.
SIZE_SHARE = 0.1  # Of the newest entry in the size of entries.
UNKNOWN = "It is not known whether the order was placed: send it again with the same client_order_id."

log = get_logger(__name__)

Place = Callable[[internal.PlaceRequest, str], Awaitable[internal.PlaceResponse]]


@dataclass(slots=True)
class _Entry:
    """The orders of one request; they always travel in one call."""

    user_id: int
    orders: Sequence[pb.NewOrder]
    request_id: str
    since_s: float = field(default_factory=trio.current_time)
    ended: trio.Event = field(default_factory=trio.Event)
    results: list[pb.SubmitResult] | None = None
    error: ExchangeError | None = None
    abandoned: bool = False


class _Lane:
    """Entries waiting for the call under way to end."""

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.filled = trio.Event()

    def put(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self.filled.set()

    def take(self, most_orders: int) -> list[_Entry]:
        """The next entries of at most `most_orders` orders, or one entry that is larger by itself."""
        taken: list[_Entry] = []
        size = 0
        while self.entries:
            size += len(self.entries[0].orders)
            if taken and size > most_orders:
                break
            taken.append(self.entries.popleft())
        return taken


class OrderBatcher:
    """Places orders through `place(request, request_id)` while `run` runs."""

    def __init__(self, place: Place, *, batch_orders: int, queue_orders: int, lanes: int = LANES) -> None:
        assert batch_orders > 0
        assert queue_orders > 0
        assert lanes > 0
        self._place = place
        self._batch_orders = batch_orders
        self._queue_orders = queue_orders
        self._queued = 0
        self._orders_each = 1.0  # Of the entries of late.
        self._orders_per_s = 0.0  # Of calls when orders wait behind them: what can be carried. 0: unknown.
        self._lanes = [_Lane() for _ in range(lanes)]

    def wait_s(self, coming: int = 0) -> float:
        """How long an order that comes now will wait for its call, as far as can be told; 0 in calm.

        What waits, at the rate of late; and no less than the oldest has waited, when calls hang. `coming`
        entries of the usual size wait too, without being here yet.
        """
        if not self._queued:
            return 0.0
        oldest_s = min(lane.entries[0].since_s for lane in self._lanes if lane.entries)
        ahead = self._queued + coming * self._orders_each
        by_rate_s = ahead / self._orders_per_s if self._orders_per_s else 0.0
        return max(by_rate_s, trio.current_time() - oldest_s)

    async def run(self) -> None:
        """Send what is submitted, for ever."""
        async with trio.open_nursery() as nursery:
            for lane in self._lanes:
                nursery.start_soon(self._send, lane)

    async def submit(
        self, user_id: int, orders: Sequence[pb.NewOrder], request_id: str
    ) -> list[pb.SubmitResult]:
        """One result for each order, in order, once they are durable.

        Raises Busy when the queue is full (nothing was done) and Unavailable when the call failed
        (it is then not known whether the orders were placed).
        """
        if self._queued + len(orders) > self._queue_orders:
            raise Busy("Too many orders are waiting; nothing was done with this one. Send it again.")
        entry = _Entry(user_id, orders, request_id)
        self._queued += len(orders)
        self._orders_each += SIZE_SHARE * (len(orders) - self._orders_each)
        metrics.queued_orders.set(self._queued)
        self._lanes[user_id % len(self._lanes)].put(entry)
        try:
            await entry.ended.wait()
        finally:
            entry.abandoned = True  # When cancelled while it is still in the queue, it is not sent.
        if entry.error is not None:
            raise entry.error
        assert entry.results is not None
        return entry.results

    async def _send(self, lane: _Lane) -> None:
        begun_s = 0.0
        while True:
            await lane.filled.wait()
            entries = lane.take(self._batch_orders)
            if not lane.entries:
                lane.filled = trio.Event()
            self._queued -= sum(len(entry.orders) for entry in entries)
            metrics.queued_orders.set(self._queued)
            waiting = [entry for entry in entries if not entry.abandoned]
            if waiting:
                begun_s = begun_s or trio.current_time()
                await self._call(waiting)
                now_s = trio.current_time()
                orders_per_s = sum(len(entry.orders) for entry in waiting) / max(now_s - begun_s, 1e-6)
                self._learn(orders_per_s, full=bool(lane.entries))
                # What happens between two calls is part of the second one.
                begun_s = now_s if lane.entries else 0.0

    def _learn(self, orders_per_s: float, *, full: bool) -> None:
        """From one call. When nothing waits behind it, more might have been carried, but not less."""
        if full and self._orders_per_s:
            self._orders_per_s += RATE_SHARE * (orders_per_s - self._orders_per_s)
        else:
            self._orders_per_s = max(self._orders_per_s, orders_per_s)

    async def _call(self, entries: list[_Entry]) -> None:
        """One call for these entries. Each hears its own results, or the error that they share."""
        request = internal.PlaceRequest()
        add = request.orders.add
        for entry in entries:
            for order in entry.orders:
                placed = add()  # A fifth of the price of a constructor for each.
                placed.user_id = entry.user_id
                placed.order.CopyFrom(order)
        metrics.batch_orders.observe(len(request.orders))
        try:
            response = await self._place(request, entries[0].request_id)
            _hand_out(entries, response.results)
        except ExchangeError as error:
            for entry in entries:
                entry.error = _for_waiter(error)
        finally:
            for entry in entries:
                entry.ended.set()


def _hand_out(entries: list[_Entry], results: Sequence[pb.SubmitResult]) -> None:
    if len(results) != sum(len(entry.orders) for entry in entries):
        log.error("order-service sent another number of results", got=len(results))
        raise ExchangeError("The orders were sent, and the answer cannot be read; look them up.")
    start = 0
    for entry in entries:
        entry.results = list(results[start : start + len(entry.orders)])
        start += len(entry.orders)


def _for_waiter(error: ExchangeError) -> ExchangeError:
    """Each waiter raises an exception of its own, since a traceback belongs to one task."""
    if isinstance(error, Unavailable):
        return Unavailable(f"{error.message} {UNKNOWN}", error.details)
    return type(error)(error.message, error.details)
