"""Which order updates are to be told next, when they come over two ways. Pure.

Kafka brings every record, in its order, perhaps more than once. The settler tells most of them directly,
sooner, each with the place of the record before it, and any of those may be missing. A direct one is taken
when everything up to that place has been; else it waits for Kafka to fill the hole, or to bring it too.
"""

from collections import deque
from dataclasses import dataclass, field

from daemons.market_data import metrics
from exchange.v1 import events_pb2

MAX_HELD = 256  # Records of a partition that wait for what is before them; Kafka brings what is dropped.
MAX_HELD_BYTES = 4 << 20

# A record's place in its partition: its last sequence, and the last of its orders. A large batch comes in
# parts, which have the next of its orders each, by id.
Place = tuple[int, int]


def place_of(updates: events_pb2.OrderUpdates) -> Place:
    return updates.last_sequence, updates.orders[-1].state.order_id if updates.orders else 0


@dataclass(slots=True)
class _Held:
    after: Place
    updates: events_pb2.OrderUpdates
    size_bytes: int


@dataclass(slots=True)
class _Partition:
    seen: Place = (0, 0)
    held: deque[_Held] = field(default_factory=deque)
    held_bytes: int = 0


class Turns:
    def __init__(self) -> None:
        self._partitions: dict[int, _Partition] = {}

    def seen(self, updates: events_pb2.OrderUpdates) -> bool:
        """True when this record, or a later one of its partition, has had its turn."""
        known = self._partitions.get(updates.partition)
        return known is not None and place_of(updates) <= known.seen

    def take(
        self, updates: events_pb2.OrderUpdates, after: Place | None = None
    ) -> list[events_pb2.OrderUpdates]:
        """The records whose turn it is now, in their order; `after` is given with a direct one."""
        if self.seen(updates):
            return []
        state = self._partitions.setdefault(updates.partition, _Partition())
        if after is not None and not (0, 0) < after <= state.seen:
            _hold(state, _Held(after, updates, updates.ByteSize()))
            return []
        state.seen = place_of(updates)
        return [updates, *_released(state)]


def _hold(state: _Partition, held: _Held) -> None:
    state.held.append(held)
    state.held_bytes += held.size_bytes
    while len(state.held) > MAX_HELD or state.held_bytes > MAX_HELD_BYTES:
        state.held_bytes -= state.held.popleft().size_bytes  # The oldest: Kafka is nearest to it.
        metrics.told_directly.labels("dropped").inc()


def _released(state: _Partition) -> list[events_pb2.OrderUpdates]:
    """Those that waited and now follow what has been taken, up to the next hole."""
    found = []
    while state.held and state.held[0].after <= state.seen:
        held = state.held.popleft()
        state.held_bytes -= held.size_bytes
        if place_of(held.updates) > state.seen:
            state.seen = place_of(held.updates)
            found.append(held.updates)
    return found
