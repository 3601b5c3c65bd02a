"""What was applied and is not settled yet (I4, I8).

The leader has published it, and publishes it again when it is asked for; a standby keeps it for the
moment when it leads. Bounded: `full` tells the replica to wait for settling before it takes on more.
"""

from collections import OrderedDict
from dataclasses import dataclass

from common.core.messages import GENESIS_CHAIN, Applied
from common.kafka import Message
from common.topics import Topics
from daemons.matching.outbound import event_messages

MOST_BYTES = 128 << 20
OLDEST_BYTES = 8 << 20
# About what one trade or one order of a settlement takes up while it is not encoded.
ROW_BYTES = 600


class Forked(Exception):
    """What is settled is not what this engine made: its history is not the exchange's."""


@dataclass(slots=True)
class KeptBatch:
    """The events of one batch; encoded when they are first asked for, which on a standby is rarely."""

    first_sequence: int
    last_sequence: int
    chain: bytes
    rows: int
    size_bytes: int
    _orders_offset: int
    _applied: Applied | None
    _events: list[Message] | None = None

    @classmethod
    def of(cls, applied: Applied, orders_offset: int) -> "KeptBatch":
        settlement = applied.settlement
        rows = 1 + len(settlement.trades) + len(settlement.orders)
        return cls(
            settlement.first_sequence,
            settlement.last_sequence,
            settlement.chain,
            rows,
            rows * ROW_BYTES,
            orders_offset,
            applied,
        )

    def events(self, topics: Topics) -> list[Message]:
        """Settlement and trades, without a token."""
        if self._events is None:
            assert self._applied is not None
            self._events = event_messages(self._applied, topics, self._orders_offset)
            self._applied = None
        return self._events


class Kept:
    def __init__(self, watermark: int, chain: bytes = GENESIS_CHAIN) -> None:
        self._watermark = watermark
        self._chain = chain
        self._batches: OrderedDict[int, KeptBatch] = OrderedDict()
        self.size_bytes = 0

    @property
    def watermark(self) -> int:
        return self._watermark

    @property
    def full(self) -> bool:
        return self.size_bytes > MOST_BYTES

    def add(self, batch: KeptBatch) -> None:
        """Keep it, unless it is settled: an engine may be behind what others settled."""
        if batch.last_sequence > self._watermark:
            self._batches[batch.first_sequence] = batch
            self.size_bytes += batch.size_bytes
        else:
            self._compare(batch)

    def settled(self, watermark: int, chain: bytes) -> None:
        """Forget what is settled. Raises Forked when the watermark's chain is not the one made here."""
        if watermark < self._watermark:
            return  # Read before the last look, and heard of after it.
        self._watermark, self._chain = watermark, chain
        while self._batches:
            first_sequence, batch = next(iter(self._batches.items()))
            if batch.last_sequence > watermark:
                return
            self._compare(batch)
            del self._batches[first_sequence]
            self.size_bytes -= batch.size_bytes

    def _compare(self, batch: KeptBatch) -> None:
        if batch.last_sequence == self._watermark and batch.chain != self._chain:
            raise Forked(f"the settled batch at {self._watermark} has another chain")

    def again(self, first_sequence: int, last_sequence: int, chain: bytes) -> KeptBatch | None:
        """A batch that came a second time; None when it is settled. Raises Forked when it is another one."""
        if last_sequence <= self._watermark:
            return None
        kept = self._batches.get(first_sequence)
        if kept is None or kept.chain != chain:
            raise Forked(f"another batch at {first_sequence} than the one that was applied")
        return kept

    def all(self) -> list[KeptBatch]:
        """Everything above the watermark, in order."""
        return list(self._batches.values())

    def oldest(self) -> list[KeptBatch]:
        """Those that settling waits for: one at least."""
        found: list[KeptBatch] = []
        size_bytes = 0
        for batch in self._batches.values():
            found.append(batch)
            size_bytes += batch.size_bytes
            if size_bytes >= OLDEST_BYTES:
                break
        return found
