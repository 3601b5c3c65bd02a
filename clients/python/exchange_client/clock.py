"""The exchange's time, as far as it can be known from here; pure, the clock is a parameter."""

import time
from collections.abc import Callable
from datetime import datetime

TOO_FAR_AHEAD_MS = 500  # The exchange takes timestamps that are a little ahead.


class Clock:
    """This machine's time plus an offset. `measured` False: the offset is 0, and nobody has looked.

    Does not promise more than half of the round trip with which the offset was measured.
    """

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self.offset_s = 0.0
        self.measured = False
        self._last_ms = 0

    def here_s(self) -> float:
        """This machine's time, Unix seconds."""
        return self._now_s()

    def stamp_ms(self) -> int:
        """The exchange's time, Unix milliseconds, no two alike: a signature is good for one request."""
        self._last_ms = max(self._last_ms + 1, self._now_ms())
        return self._last_ms

    def took(self, asked_s: float, answered_s: float, told: datetime) -> None:
        """`told` is what the exchange's clock showed between these two moments of `here_s`."""
        self.offset_s = told.timestamp() - (asked_s + answered_s) / 2
        self.measured = True
        if self._last_ms > self._now_ms() + TOO_FAR_AHEAD_MS:
            self._last_ms = 0  # What follows it would be refused for as long.

    def _now_ms(self) -> int:
        return int((self._now_s() + self.offset_s) * 1000)
