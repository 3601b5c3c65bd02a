"""Who waits until orders are settled: until the watermark of their partition has passed them.

One look at the watermarks serves all who wait. The settler of this process says at once how far it came;
what another process settles is found by a look every POLL_S, and nobody looks while nobody waits.

Does not promise: that anything is settled in time. Who waits brings a deadline.
"""

from collections import Counter
from collections.abc import Iterable

import anyio
from prometheus_client import Gauge
from sortedcontainers import SortedDict

from common import db
from common.core.errors import Busy, Malformed
from common.telemetry import get_logger
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as types

POLL_S = 0.05
DEFAULT_MS, MOST_MS = 2_000, 10_000
MOST_ORDERS = 1_000

WAITING = Gauge("exchange_settle_waiters", "Calls that wait until orders are settled")

log = get_logger(__name__)

_LOOK = "SELECT partition, sequence FROM watermarks WHERE partition = ANY(%s::int[])"


class Watermarks:
    """How far each partition is settled, as far as is known here, and who waits for more."""

    def __init__(self) -> None:
        self._reached: dict[int, int] = {}
        # By partition: (sequence, a number of its own) -> the event of who waits for it.
        self._waiting: dict[int, SortedDict[tuple[int, int], anyio.Event]] = {}
        self._numbers = 0
        self._came = anyio.Event()

    def reached(self, partition: int, sequence: int) -> None:
        """Everything up to there is settled, and durable; never blocks."""
        if sequence <= self._reached.get(partition, 0):
            return
        self._reached[partition] = sequence
        waiting = self._waiting.get(partition)
        while waiting and waiting.peekitem(0)[0][0] <= sequence:
            waiting.popitem(0)[1].set()

    async def wait(self, partition: int, sequence: int) -> None:
        """Until it is settled; who is cancelled is forgotten."""
        if self._reached.get(partition, 0) >= sequence:
            return
        waiting = self._waiting.setdefault(partition, SortedDict())
        self._numbers += 1
        place, event = (sequence, self._numbers), anyio.Event()
        waiting[place] = event
        self._came.set()
        try:
            await event.wait()
        finally:
            waiting.pop(place, None)

    async def watch(self, pool: db.Pool) -> None:
        """Look for what other processes settle, until cancelled."""
        while True:
            await self._came.wait()
            await anyio.sleep(POLL_S)
            wanted = [partition for partition, waiting in self._waiting.items() if waiting]
            if not wanted:
                self._came = anyio.Event()
                continue
            try:
                async with pool.connection() as connection:
                    cursor = await connection.execute(_LOOK, [wanted])
                    for partition, sequence in await cursor.fetchall():
                        self.reached(partition, sequence)
            except Exception as error:
                if not db.is_transient(error):
                    raise
                log.warning("watermarks not seen", error=str(error))


class SettledOrders:
    """The orders of a call, once they are settled. At most `most` calls wait, a tenth of them of one user."""

    def __init__(self, watermarks: Watermarks, markets: Markets, queries: Queries, *, most: int) -> None:
        self._watermarks = watermarks
        self._markets = markets
        self._queries = queries
        self._most = most
        self._most_of_one = -(-most // 10)
        self._by_user: Counter[int] = Counter()
        self._scopes: set[anyio.CancelScope] = set()
        self._ending = False

    async def of(self, user_id: int, request: pb.AwaitRequest) -> pb.AwaitResponse:
        """The user's orders that are settled when all are, or when the time is over.

        Raises Malformed, UnknownSymbol, and Busy when too many wait.
        """
        if not 0 <= request.timeout_ms <= MOST_MS or len(request.accepted) > MOST_ORDERS:
            raise Malformed(f"At most {MOST_MS:,} ms and {MOST_ORDERS:,} orders")
        if len(self._scopes) >= self._most or self._by_user[user_id] >= self._most_of_one:
            raise Busy(f"{len(self._scopes):,} calls wait for settlements already")
        last = self._last(request.accepted)
        timeout_s = (request.timeout_ms or DEFAULT_MS) / 1000
        if not self._ending:
            self._by_user[user_id] += 1
            try:
                await self._wait(last, timeout_s)
            finally:
                self._by_user[user_id] -= 1
                self._by_user += Counter()  # Without those who have none.
        orders = await self._queries.some(user_id, [one.order_id for one in request.accepted])
        settled = [order for order in orders if order.status != types.ORDER_STATUS_ACCEPTED]
        return pb.AwaitResponse(orders=settled)

    def end(self) -> None:
        """Nobody waits any more: all are answered with what is settled by now."""
        self._ending = True
        for scope in self._scopes:
            scope.cancel()

    def _last(self, accepted: Iterable[pb.Accepted]) -> dict[int, int]:
        """The highest sequence that is waited for in each partition."""
        last: dict[int, int] = {}
        for one in accepted:
            partition = self._markets.named(one.symbol).partition
            last[partition] = max(last.get(partition, 0), one.sequence)
        return last

    async def _wait(self, last: dict[int, int], timeout_s: float) -> None:
        with anyio.move_on_after(timeout_s) as scope:
            self._scopes.add(scope)
            WAITING.set(len(self._scopes))
            try:
                for partition, sequence in last.items():
                    await self._watermarks.wait(partition, sequence)
            finally:
                self._scopes.discard(scope)
                WAITING.set(len(self._scopes))
