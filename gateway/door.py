"""Who comes in: under a load that cannot be carried the surplus is turned away at once, not left waiting.

Asked before the body is read and before anybody is identified, so that to turn away costs next to nothing.

    orders    while one that comes now would wait longer than `queue_s` for its batch, new ones hear BUSY: so
              the queue is as long as what is done in that time, however fast the exchange is just then
    requests  no more than `most_requests` are being answered at once

Cancels, reads and what operators ask pass the first bound: they ease the load, or are needed to see it.
"""

from collections.abc import Callable

from common.core.errors import Busy
from gateway import metrics


class Door:
    """`wait_s` tells how long an order that comes now would wait."""

    def __init__(self, wait_s: Callable[[], float], *, queue_s: float, most_requests: int) -> None:
        assert queue_s > 0
        assert most_requests > 0
        self._wait_s = wait_s
        self._queue_s = queue_s
        self._most_requests = most_requests
        self._inside = 0

    @property
    def is_crowded(self) -> bool:
        """True when `refusal` would refuse an order."""
        return self._inside >= self._most_requests or self._wait_s() > self._queue_s

    def refusal(self, *, places_orders: bool) -> Busy | None:
        """Why this request cannot come in now; None: it can."""
        if self._inside >= self._most_requests:
            metrics.turned_away.labels("requests").inc()
            return Busy("Too many requests are under way; nothing was done with this one. Send it again.")
        if places_orders and self._wait_s() > self._queue_s:
            metrics.turned_away.labels("orders").inc()
            return Busy("Orders wait too long already; nothing was done with this one. Send it again.")
        return None

    def enter(self) -> None:
        self._inside += 1
        metrics.in_flight.inc()

    def leave(self) -> None:
        self._inside -= 1
        metrics.in_flight.dec()
