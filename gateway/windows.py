"""Sliding windows: how much of something a subject (an address, a user) has done of late; pure.

A window is cut into SLOTS slots, and what is counted are the current slot and the SLOTS before it. So no
window of that length ever holds more than its limit, wherever it begins; and what is refused had its limit
within a window that is longer by at most one slot, a twentieth. An exact log would need an entry for each
order; this needs SLOTS + 1 numbers, whatever the limit is.

Who goes over a limit is told when there is room again. Who goes over it again within CALM_MS of that is
paused: nothing of that subject passes for FIRST_PAUSE_MS, twice as long the next time, and so on up to
MOST_PAUSE_MS. After CALM_MS without an overflow all is forgiven.

Here it is for one process, in memory. `windows_script` is the same for Redis, for all gateways together; a
test compares the two.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

SLOTS = 20
RING = SLOTS + 1
FIRST_PAUSE_MS, MOST_PAUSE_MS = 2_000, 300_000
CALM_MS = 60_000
MOST_SUBJECTS = 50_000


@dataclass(frozen=True, slots=True)
class Window:
    """At most `limit` within any `length_s`."""

    limit: int
    length_s: int

    @property
    def slot_ms(self) -> int:
        return self.length_s * 1_000 // SLOTS


class Outcome(IntEnum):
    REFUSED = 0
    ALLOWED = 1
    PAUSED = 2  # Refused whatever it weighs, until the pause ends.


class Verdict(NamedTuple):
    """What came of a check, and how the tightest window stands after it."""

    outcome: Outcome
    retry_ms: int  # 0 when it was allowed.
    limit: int
    used: int
    reset_ms: int  # Until some of what is used becomes free; 0 when nothing is used.

    @property
    def allowed(self) -> bool:
        return self.outcome is Outcome.ALLOWED


@dataclass(slots=True)
class _Count:
    """The slots of one window; slot number N is kept at N % RING."""

    newest: int
    slots: list[int]

    def roll(self, slot: int) -> None:
        """Forget what has left the window. A clock that goes back a little does no harm."""
        if slot < self.newest - RING or slot > self.newest + RING:
            self.newest, self.slots = slot, [0] * RING
        while self.newest < slot:
            self.newest += 1
            self.slots[self.newest % RING] = 0

    def free_ms(self, amount: int, slot_ms: int, now_ms: int) -> int:
        """Until so much of what is counted has left the window: all of it, when it is less."""
        for slot in range(self.newest - SLOTS, self.newest + 1):
            amount -= self.slots[slot % RING]
            if amount <= 0:
                return (slot + RING) * slot_ms - now_ms
        return (self.newest + RING) * slot_ms - now_ms


@dataclass(slots=True)
class _Subject:
    counts: list[_Count]
    told_ms: int = 0  # Until then it was told to wait.
    strikes: int = 0


class LocalWindows:
    """The standing of at most MOST_SUBJECTS; who has been silent longest is forgotten first."""

    def __init__(self) -> None:
        self._subjects: OrderedDict[bytes, _Subject] = OrderedDict()

    def check(self, key: bytes, windows: tuple[Window, ...], weight: int, now_ms: int) -> Verdict:
        """Count `weight` in all of the windows, or in none when one of them has no room for it."""
        subject = self._find(key, windows)
        for window, count in zip(windows, subject.counts, strict=True):
            count.roll(now_ms // window.slot_ms)
        if subject.strikes > 1 and now_ms < subject.told_ms:
            return _verdict(Outcome.PAUSED, subject.told_ms - now_ms, windows, subject, now_ms)
        room_ms = _room_ms(windows, subject, weight, now_ms)
        if room_ms:
            retry_ms = _strike(subject, room_ms, now_ms)
            return _verdict(Outcome.REFUSED, retry_ms, windows, subject, now_ms)
        for count in subject.counts:
            count.slots[count.newest % RING] += weight
        return _verdict(Outcome.ALLOWED, 0, windows, subject, now_ms)

    def _find(self, key: bytes, windows: tuple[Window, ...]) -> _Subject:
        subject = self._subjects.get(key)
        if subject is None:
            subject = self._subjects[key] = _Subject([_Count(0, [0] * RING) for _ in windows])
            if len(self._subjects) > MOST_SUBJECTS:
                self._subjects.popitem(last=False)
        else:
            self._subjects.move_to_end(key)
        return subject


def _room_ms(windows: tuple[Window, ...], subject: _Subject, weight: int, now_ms: int) -> int:
    """Until every window has room for `weight`; 0: now. What is more than a limit hears the whole window."""
    longest_ms = 0
    for window, count in zip(windows, subject.counts, strict=True):
        over = sum(count.slots) + weight - window.limit
        if over > 0:
            longest_ms = max(longest_ms, count.free_ms(over, window.slot_ms, now_ms))
    return longest_ms


def _strike(subject: _Subject, room_ms: int, now_ms: int) -> int:
    """Remember an overflow; returns for how long the subject is told to wait."""
    if now_ms < subject.told_ms:
        return max(room_ms, subject.told_ms - now_ms) if subject.strikes > 1 else room_ms
    subject.strikes = 1 if now_ms > subject.told_ms + CALM_MS else subject.strikes + 1
    if subject.strikes == 1:
        subject.told_ms = now_ms + room_ms
        return room_ms
    pause_ms = min(MOST_PAUSE_MS, FIRST_PAUSE_MS << min(subject.strikes - 2, 20))
    subject.told_ms = now_ms + max(pause_ms, min(room_ms, MOST_PAUSE_MS))
    return max(pause_ms, room_ms)


def _verdict(
    outcome: Outcome, retry_ms: int, windows: tuple[Window, ...], subject: _Subject, now_ms: int
) -> Verdict:
    """Of several windows, the one that has the smallest part of its limit left is told."""
    told, count = windows[0], subject.counts[0]
    used = sum(count.slots)
    for window, other in zip(windows[1:], subject.counts[1:], strict=True):
        other_used = sum(other.slots)
        if other_used * told.limit > used * window.limit:
            told, count, used = window, other, other_used
    reset_ms = count.free_ms(1, told.slot_ms, now_ms) if used else 0
    return Verdict(outcome, retry_ms, told.limit, used, reset_ms)
