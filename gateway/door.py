"""Who comes in: under a load that cannot be carried the surplus is turned away at once, not left waiting.

Asked before the body is read and before anybody is identified, so that to turn away costs next to nothing.

    orders    while one that comes now would wait longer than `queue_s` for its batch, new ones hear BUSY: so
              the queue is as long as what is done in that time, however fast the exchange is just then
    requests  no more than `most_requests` are being answered at once

What is inside with its whole body and not in the queue yet (it is being identified, counted, read) counts as
if it were: else a door that opens lets in more than the queue takes, and those hear BUSY late. A body that
does not come keeps nobody out. Cancels, reads and what operators ask pass the first bound: they ease the
load, or are needed to see it.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from common.core.errors import Busy
from gateway import metrics


class Door:
    """`wait_s(coming)` tells how long an order would wait that comes behind so many requests with orders."""

    def __init__(self, wait_s: Callable[[int], float], *, queue_s: float, most_requests: int) -> None:
        assert queue_s > 0
        assert most_requests > 0
        self._wait_s = wait_s
        self._queue_s = queue_s
        self._most_requests = most_requests
        self._inside = 0
        self.coming = 0  # Requests that will put orders into the queue in a moment.

    @property
    def is_crowded(self) -> bool:
        """True when `refusal` would refuse an order."""
        return self._inside >= self._most_requests or self._waits_too_long()

    def _waits_too_long(self) -> bool:
        return self._wait_s(self.coming) > self._queue_s

    def refusal(self, *, places_orders: bool) -> Busy | None:
        """Why this request cannot come in now; None: it can."""
        if self._inside >= self._most_requests:
            metrics.turned_away.labels("requests").inc()
            return Busy("Too many requests are under way; nothing was done with this one. Send it again.")
        if places_orders and self._waits_too_long():
            metrics.turned_away.labels("orders").inc()
            return Busy("Orders wait too long already; nothing was done with this one. Send it again.")
        return None

    def visit(self) -> "Visit":
        """A block around what a request does inside."""
        return Visit(self)

    def enter(self) -> None:
        self._inside += 1
        metrics.in_flight.inc()

    def leave(self) -> None:
        self._inside -= 1
        metrics.in_flight.dec()


class Visit:
    """A request that is inside."""

    __slots__ = ("_coming", "_door")

    def __init__(self, door: Door) -> None:
        self._door = door
        self._coming = False

    def __enter__(self) -> Self:
        self._door.enter()
        return self

    def comes(self) -> None:
        """It has orders, and all of it is here."""
        assert not self._coming
        self._coming = True
        self._door.coming += 1

    def queued(self) -> None:
        """Its orders go into the queue now, which counts them from here on."""
        self._door.coming -= self._coming
        self._coming = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.queued()
        self._door.leave()
