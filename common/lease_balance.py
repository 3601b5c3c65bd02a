"""Which of the partitions it leads an instance hands to another one, and when. Pure.

Everybody decides about its own partitions alone, from what the store shows to all. It hands over when a
steady member leads two fewer: then every handover evens the split out and none can be undone by the next,
so a change of membership costs at most as many handovers as there are partitions. It does one at a time.
A partition that comes back (the receiver crashed, or failed to lead it) stops all handovers for a while,
each time for longer.
"""

from collections import Counter
from collections.abc import Collection

from common.lease_base import Attendance

# Who joined or became ready since is given nothing yet; who leads what must have stood as long. It exceeds a
# member's time to live, so that a dead or frozen one is gone when those who took over look whom to give.
STEADY_S = 5.0
PAUSE_S = 1.0  # Least time between two handovers of one instance.
TRIAL_S = 30.0  # What comes back within that was given in vain.
FIRST_REST_S, LAST_REST_S = 30.0, 600.0


class Balance:
    """The handovers of one instance in one service. Times are the local monotonic clock's, in seconds."""

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._quiet_from_s = float("-inf")
        self._given: dict[int, float] = {}
        self._last: int | None = None  # The partition given last.
        self._not_before_s = float("-inf")
        self._rest_s = FIRST_REST_S

    def choose(self, seen: Attendance, led: Collection[int], partitions: int, now_s: float) -> int | None:
        """The one of the partitions `led` here to hand over now, out of so many; mostly None."""
        self._watch(seen, now_s)
        receiver_leads = least_led(seen, STEADY_S)
        if receiver_leads is None or not led:
            return None
        if now_s < self._not_before_s or now_s - self._quiet_from_s < STEADY_S:
            return None
        if self._last is not None and self._last not in seen.leaders:
            return None  # Under way.
        counts = Counter(seen.leaders.values())
        counts[seen.me] = len(led)
        # Of several that could give, one does: the others see the result first.
        if max(seen.members, key=lambda name: (counts[name], name)) != seen.me:
            return None
        # What nobody leads now may be on its way to the receiver already.
        unled = max(0, partitions - len(seen.leaders))
        if len(led) - (receiver_leads + unled) < 2:
            return None
        return max(led)

    def _watch(self, seen: Attendance, now_s: float) -> None:
        """Note when leaders changed otherwise than by our own handover."""
        last = self._leaders
        if any(last.get(number) != holder for number, holder in seen.leaders.items() if number != self._last):
            self._quiet_from_s = now_s
        self._leaders = last | dict(seen.leaders)

    def gave(self, partition: int, now_s: float) -> None:
        """It was chosen, and is being handed over."""
        if self._given and now_s - max(self._given.values()) >= TRIAL_S:
            self._given.clear()
            self._rest_s = FIRST_REST_S  # The one before was kept by whoever got it.
        self._given[partition] = now_s
        self._last = partition
        self._not_before_s = now_s + PAUSE_S

    def took(self, partition: int, now_s: float) -> bool:
        """This instance leads it now; true when that means that it was given in vain."""
        given_s = self._given.pop(partition, None)
        if given_s is None or now_s - given_s >= TRIAL_S:
            return False
        self._not_before_s = now_s + self._rest_s
        self._rest_s = min(self._rest_s * 2, LAST_REST_S)
        return True


def least_led(seen: Attendance, steady_s: float = 0.0, but: str = "") -> int | None:
    """How many partitions the ready member with the fewest leads, of the others; None without another.

    Members there for less than `steady_s`, and the one named in `but`, do not count.
    """
    counts = Counter(seen.leaders.values())
    return min(
        (
            counts[name]
            for name, member in seen.members.items()
            if name not in (seen.me, but) and member.ready and member.steady_s >= steady_s
        ),
        default=None,
    )
