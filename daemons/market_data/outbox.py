"""What waits for one client, bounded; and how a slow client's depth is conflated. Pure but for one event.

A publisher never waits for a client. It offers a frame, and the client's outbox
- queues it, while the queue is short;
- or, when the queue is long and the channel conflates (depth, ticker), only notes that the subscription
  fell behind and which levels changed: when the queue has drained, one frame made from the channel's
  present state brings it up to date, with `previous` = the last sequence that this client was sent;
- or, when the channel does not conflate and the queue is full, ends the client with 1013 and a reason.

So one client holds at most HARD_BYTES of frames, which it shares with the others, and
MAX_CHANGED_LEVELS for each depth subscription.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio

from daemons.market_data import metrics, protocol

SEND_BYTES = 64 << 10  # About as much goes into one send.
SOFT_BYTES = 128 << 10  # From here on, what can be conflated is.
HARD_BYTES = 2 << 20  # Beyond it a client is too slow for channels that cannot be conflated.
LAST_WORDS_S = 5.0  # What a send under way has left when the client is to be closed.
MAX_CHANGED_LEVELS = 2_000  # Beyond it a snapshot is cheaper than the list of what changed.

Changes = dict[tuple[bool, int], int]  # (is a bid, price_ticks) -> qty_lots as they are now; 0: gone

TRY_AGAIN_LATER = 1013  # IANA's registry of close codes.


class Body(Protocol):
    """The content of a frame, kept as numbers until somebody wants text."""

    @property
    def weight(self) -> int:
        """About as many bytes as its JSON takes."""

    def to_json(self) -> object: ...


class Frame:
    """One message of a channel; its bytes are made once, when the first client is sent it."""

    __slots__ = ("_wire", "body", "born_s", "channel", "previous", "sequence", "snapshot", "weight")

    def __init__(
        self, channel: str, body: Body, *, snapshot: bool, sequence: int, previous: int, born_s: float = 0.0
    ) -> None:
        self.channel = channel
        self.body = body
        self.snapshot = snapshot
        self.sequence = sequence
        self.previous = previous
        self.born_s = born_s  # anyio.current_time() of its arrival; 0: not measured.
        self.weight = 128 + body.weight
        self._wire: bytes | None = None

    @property
    def wire(self) -> bytes:
        if self._wire is None:
            metrics.frames_encoded.inc()
            self._wire = protocol.data_frame(
                self.channel,
                snapshot=self.snapshot,
                sequence=self.sequence,
                previous=self.previous,
                data=self.body.to_json(),
            )
        return self._wire


class Reply:
    """An answer to one client's request; waits in the same queue, so that it comes in order."""

    __slots__ = ("born_s", "weight", "wire")

    def __init__(self, wire: bytes) -> None:
        self.wire = wire
        self.weight = len(wire)
        self.born_s = 0.0


Item = Frame | Reply


class Source(Protocol):
    """The channel of a subscription, as an outbox needs to know it."""

    name: str
    kind: str
    conflates: bool

    def catch_up(self, subscription: "Subscription") -> Frame | None:
        """What brings the subscription up to date; None while the channel has nothing to show."""


class Subscription:
    """One client's place in one channel: what it was sent last, and what it has missed since."""

    __slots__ = ("behind", "changed", "outbox", "sequence", "source")

    def __init__(self, source: Source, outbox: "Outbox") -> None:
        self.source = source
        self.outbox = outbox
        self.sequence = 0  # Last one queued for this client; 0: none.
        self.behind = False
        self.changed: Changes | None = None  # None: only a snapshot will do.

    def fall_behind(self, changed: Changes | None) -> None:
        """Note what was missed; `changed` None: everything."""
        if not self.behind:
            self.behind = True
            self.changed = {}
        if changed is None or self.changed is None or len(self.changed) + len(changed) > MAX_CHANGED_LEVELS:
            self.changed = None
        else:
            self.changed |= changed


# Writes to the client's socket what it takes now; how many bytes that is.
WriteNow = Callable[[bytes], int]


class Outbox:
    """The queue of one client. Everything but `wait` returns at once.

    Its reader is the client's writer, which sleeps in `wait`. While it does, and `write_now` is set, what
    channels offer does not wake it: whoever published calls `flush`.
    """

    def __init__(self, *, soft_bytes: int = SOFT_BYTES, hard_bytes: int = HARD_BYTES) -> None:
        assert 0 < soft_bytes <= hard_bytes
        self._soft_bytes = soft_bytes
        self._hard_bytes = hard_bytes
        self._urgent: deque[bytes] = deque(maxlen=16)  # Pings and pongs; a flood of them loses the oldest.
        self._queue: deque[Item] = deque()
        self._behind: dict[Subscription, None] = {}
        self._wake: anyio.Event | None = None
        self._rest = b""
        self.write_now: WriteNow | None = None
        self.bytes = 0
        self.closed: tuple[int, str] | None = None
        self.on_close: anyio.CancelScope | None = None  # Its deadline is brought forward: last words.

    def offer(self, subscription: Subscription, frame: Frame, changed: Changes | None = None) -> None:
        """Queue, conflate or close, as the module says; `changed` is what a depth update touched."""
        if self.closed is not None:
            return
        if subscription.behind or (subscription.source.conflates and self.bytes > self._soft_bytes):
            subscription.fall_behind(None if frame.snapshot else changed)
            self._behind[subscription] = None
        elif self._push(frame, subscription.source.name):
            subscription.sequence = frame.sequence
        if self.write_now is None:
            self._notify()

    def reply(self, wire: bytes) -> None:
        self._push(Reply(wire), "")
        self._notify()

    def send(self, frame: Frame) -> None:
        """Queue a frame of a private channel, which nobody else is sent."""
        self._push(frame, frame.channel)
        self._notify()

    def urgent(self, wire: bytes) -> None:
        """A ping or pong: goes before everything that waits."""
        self._urgent.append(wire)
        self._notify()

    def want(self, subscription: Subscription) -> None:
        """Send the present state when there is one: a new subscription starts with it."""
        subscription.fall_behind(None)
        self._behind[subscription] = None
        self._notify()

    def forget(self, subscription: Subscription) -> None:
        self._behind.pop(subscription, None)

    def close(self, code: int, reason: str) -> None:
        """End the client: nothing more is queued, what waits is dropped. The first reason stays."""
        if self.closed is not None:
            return
        self.closed = (code, reason)
        self._queue.clear()
        self._behind.clear()
        self.bytes = 0
        if self.on_close is not None:
            self.on_close.deadline = min(self.on_close.deadline, anyio.current_time() + LAST_WORDS_S)
        self._notify()

    def take_urgent(self) -> list[bytes]:
        urgent = list(self._urgent)
        self._urgent.clear()
        return urgent

    def take(self, most_bytes: int) -> list[Item]:
        """What to send now, in order, about `most_bytes` of it, at least one item if there is any."""
        taken: list[Item] = []
        size = 0
        while self._queue and size < most_bytes:
            item = self._queue.popleft()
            size += item.weight
            self.bytes -= item.weight
            taken.append(item)
        if self._queue:
            return taken
        for subscription in list(self._behind):
            if size >= most_bytes:
                break
            frame = subscription.source.catch_up(subscription)
            if frame is None:
                continue  # The channel offers a frame when it has something; until then it waits here.
            del self._behind[subscription]
            subscription.behind = False
            subscription.sequence = frame.sequence
            size += frame.weight
            taken.append(frame)
        return taken

    def take_rest(self) -> bytes:
        """What is left of a send that has begun: goes before everything else."""
        rest, self._rest = self._rest, b""
        return rest

    def flush(self) -> tuple[int, int]:
        """Send what waits, unless the writer is at work; how many frames and bytes were taken.

        What the socket does not take at once is left to the writer.
        """
        if self._wake is None or self.write_now is None:
            return 0, 0
        frames = size_bytes = 0
        while not self._rest and (items := self.take(SEND_BYTES)):
            chunk = b"".join([item.wire for item in items]) if len(items) > 1 else items[0].wire
            written = self.write_now(chunk)
            if written < len(chunk):
                self._rest = chunk[written:]
                self._notify()
            frames += len(items)
            size_bytes += len(chunk)
        return frames, size_bytes

    async def wait(self) -> None:
        """Return when there may be something to take, or to close."""
        if self._rest or self._queue or self._urgent or self.closed is not None:
            return
        self._wake = anyio.Event()
        await self._wake.wait()

    def _push(self, item: Item, channel: str) -> bool:
        """False when there is no room for it; `channel` is empty for an answer."""
        if self.closed is not None:
            return False
        # One item may always wait, however large: a snapshot of a deep book is one.
        if self.bytes and self.bytes + item.weight > self._hard_bytes:
            self.close(TRY_AGAIN_LATER, f"too slow for {channel}" if channel else "does not read its answers")
            return False
        self._queue.append(item)
        self.bytes += item.weight
        return True

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None
