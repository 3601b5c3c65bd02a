"""When a signed request may arrive, and that it arrives once. Pure but for the clock, a parameter.

A timestamp may be `window_ms` old, and AHEAD_MS in the future, for clocks that run ahead. For that long the
signatures are remembered. The memory is one process's; `SharedReplays` shares it among several.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from common.core.errors import Busy, SignatureRepeated, TimestampOutsideWindow

AHEAD_MS = 1_000
MOST_SIGNATURES = 200_000  # About 40 MB; full, it refuses rather than forgets.
_TIMESTAMP = re.compile(r"[1-9][0-9]{0,15}")


def unix_ms() -> int:
    return time.time_ns() // 1_000_000


class Window:
    """Judges timestamps by `clock_ms`, Unix time in milliseconds."""

    def __init__(self, window_ms: int, clock_ms: Callable[[], int] = unix_ms) -> None:
        assert window_ms > 0
        self.window_ms = window_ms
        self.clock_ms = clock_ms

    def check(self, timestamp: str) -> int:
        """The timestamp as a number; raises TimestampOutsideWindow."""
        now_ms = self.clock_ms()
        if _TIMESTAMP.fullmatch(timestamp) is None:
            raise TimestampOutsideWindow(
                "The timestamp is Unix time in milliseconds, in decimal digits.", {"server_ms": str(now_ms)}
            )
        timestamp_ms = int(timestamp)
        if not now_ms - self.window_ms <= timestamp_ms <= now_ms + AHEAD_MS:
            raise self.refusal(now_ms)
        return timestamp_ms

    def refusal(self, now_ms: int) -> TimestampOutsideWindow:
        return TimestampOutsideWindow(
            f"The timestamp must be at most {self.window_ms} ms old and {AHEAD_MS} ms ahead.",
            {"server_ms": str(now_ms), "window_ms": str(self.window_ms)},
        )


class Replays(Protocol):
    """A memory of signatures."""

    async def take(self, signature: bytes, timestamp_ms: int) -> None:
        """Remember it; raises SignatureRepeated for one that is remembered, Busy when there is no room."""


class LocalReplays:
    """The signatures that this process has taken, and that could come again.

    What was signed before the process began may have been taken by the one before it, so it is refused, with
    TimestampOutsideWindow. That leaves a client whose clock is ahead: for up to AHEAD_MS after a restart its
    last requests could be repeated; a memory shared through Redis has no such gap.
    """

    def __init__(self, window: Window, most: int = MOST_SIGNATURES) -> None:
        self._window = window
        self._most = most
        self._began_ms = window.clock_ms()
        # Signature -> until when it must be remembered. All stay equally long, so the oldest is the first.
        self._taken: OrderedDict[bytes, int] = OrderedDict()

    async def take(self, signature: bytes, timestamp_ms: int) -> None:
        self.check_age(timestamp_ms)
        self.remember(signature)

    def check_age(self, timestamp_ms: int) -> None:
        """Raises TimestampOutsideWindow for what was signed before this process began."""
        if timestamp_ms < self._began_ms:
            raise self._window.refusal(self._window.clock_ms())

    def remember(self, signature: bytes) -> None:
        """Raises SignatureRepeated or Busy."""
        now_ms = self._window.clock_ms()
        self._forget(now_ms)
        if signature in self._taken:
            raise SignatureRepeated
        if len(self._taken) >= self._most:
            raise Busy("Too many signed requests; nothing was done with this one.")
        self._taken[signature] = now_ms + self._window.window_ms + AHEAD_MS

    def _forget(self, now_ms: int) -> None:
        """Two at most are forgotten for each that comes, which keeps up with any flow."""
        for _ in range(2):
            if not self._taken or next(iter(self._taken.values())) >= now_ms:
                return
            self._taken.popitem(last=False)


# Asks a store that all instances share to keep a signature for so many ms. True: it was new there. False: it
# was there. None: the store does not answer.
Claim = Callable[[bytes, int], Awaitable[bool | None]]


class SharedReplays:
    """A memory that several processes share, and each one's own for while the shared one is away.

    While it is away, a request can be repeated once at each of the other processes, within the window.
    """

    def __init__(self, window: Window, claim: Claim) -> None:
        self._window = window
        self._own = LocalReplays(window)
        self._claim = claim

    async def take(self, signature: bytes, timestamp_ms: int) -> None:
        self._own.remember(signature)
        is_new = await self._claim(signature, self._window.window_ms + AHEAD_MS)
        if is_new is False:
            raise SignatureRepeated
        if is_new is None:
            self._own.check_age(timestamp_ms)


def claim_key(prefix: str, signature: bytes) -> str:
    """What a signature is called in the store."""
    return f"{prefix}:signature:{signature.hex()}"
