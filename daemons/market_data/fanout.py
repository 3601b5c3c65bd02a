"""Sends what the public channels have published to all of their listeners, in one go.

A task for each client would be woken for each frame. Here each idle client's socket is written at once, with
all that waits for it; whose socket is full is left to the client's own writer, and is nobody else's concern.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

import anyio
import anyio.lowlevel

from daemons.market_data import metrics
from daemons.market_data.outbox import Outbox

AT_ONCE = 200  # Clients between two looks at what else there is to do.


class Published(Protocol):
    """A channel that has offered frames."""

    def outboxes(self) -> Iterable[Outbox]: ...


class Fanout:
    """The channels that have published since the last flush; `wake` hears of each."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self._published: dict[Published, None] = {}
        self._oldest_s = 0.0

    def add(self, channel: Published, born_s: float) -> None:
        """It has offered a frame with what came in at `born_s`; 0: not measured."""
        self._published[channel] = None
        self._wake()
        if born_s:
            self._oldest_s = min(self._oldest_s or born_s, born_s)

    async def flush(self) -> None:
        """Write to everybody who listens; a client that has to be brought up to date may publish more."""
        while self._published:
            published, self._published = self._published, {}
            oldest_s, self._oldest_s = self._oldest_s, 0.0
            waiting = {outbox: None for channel in published for outbox in channel.outboxes()}
            frames = size_bytes = 0
            for number, outbox in enumerate(waiting, 1):
                sent = outbox.flush()
                frames += sent[0]
                size_bytes += sent[1]
                if number % AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
            metrics.frames_out.inc(frames)
            metrics.bytes_out.inc(size_bytes)
            if oldest_s and frames:
                metrics.publish_to_send.observe(anyio.current_time() - oldest_s)
