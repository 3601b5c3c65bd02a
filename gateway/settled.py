"""`?wait=settled`: an answer that has the orders as they stand once they are settled.

The orders are durable before anybody waits for them. So whatever ends a wait (its time, a client that sends
no more, a drain, an order-service that is away) ends it with the usual answer, never with an error. Only the
number of those who wait is bounded, and who finds no room hears so before anything is placed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from common.core.errors import Busy, ExchangeError
from common.telemetry import get_logger
from exchange.v1 import orders_pb2 as pb
from gateway import metrics
from gateway.calls import Call
from gateway.services import READ_S, Services

DEFAULT_MS, MOST_MS = 2_000, 10_000

log = get_logger(__name__)


class SettledWaits:
    """Those who wait: at most `most` at a time, of whom one user has a tenth."""

    def __init__(self, services: Services, most: int) -> None:
        self._services = services
        self._most = most
        self._most_of_one = -(-most // 10)
        self._waiting: Counter[int] = Counter()  # By user.
        self._scopes: set[trio.CancelScope] = set()
        self._ending = False

    @contextmanager
    def room(self, user_id: int) -> Iterator[None]:
        """For a request that will wait, from before it does anything; raises Busy."""
        if self._waiting.total() >= self._most or self._waiting[user_id] >= self._most_of_one:
            raise Busy("Too many requests wait for settlements; nothing was done with this one.")
        self._waiting[user_id] += 1
        metrics.settle_waiters.inc()
        try:
            yield
        finally:
            metrics.settle_waiters.dec()
            self._waiting[user_id] -= 1
            if not self._waiting[user_id]:
                del self._waiting[user_id]

    async def orders(
        self, call: Call, accepted: Sequence[pb.Accepted], timeout_ms: int
    ) -> dict[int, pb.Order]:
        """By id, those that are settled when all of them are, or when nobody waits any more."""
        found: dict[int, pb.Order] = {}
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._ending:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_end_when_left, call, scope)
                        found = await self._ask(call, accepted, timeout_ms)
                        nursery.cancel_scope.cancel()
            finally:
                self._scopes.discard(scope)
        return found

    def end(self) -> None:
        """For a drain: who waits is answered now."""
        self._ending = True
        for scope in self._scopes:
            scope.cancel()

    async def _ask(self, call: Call, accepted: Sequence[pb.Accepted], timeout_ms: int) -> dict[int, pb.Order]:
        request = pb.AwaitRequest(accepted=accepted, timeout_ms=timeout_ms)
        try:
            answer = await self._services.ask(
                self._services.orders.Await, request, call, timeout_ms / 1000 + READ_S
            )
        except ExchangeError as error:
            log.info("orders are not waited for", code=error.code)
            return {}
        return {order.order_id: order for order in answer.orders}


async def _end_when_left(call: Call, scope: trio.CancelScope) -> None:
    if call.client is not None:
        await call.client.left()
        scope.cancel()
