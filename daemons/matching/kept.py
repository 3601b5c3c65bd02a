"""What was published and is not settled yet, to be published again when it is asked for (I4).

Bounded: `full` tells the replica to wait for settling before it takes on more.
"""

from collections import OrderedDict
from dataclasses import dataclass

from common.core.messages import GENESIS_CHAIN
from common.kafka import Message

MOST_BYTES = 128 << 20
OLDEST_BYTES = 8 << 20


@dataclass(slots=True)
class _Batch:
    last_sequence: int
    chain: bytes
    messages: list[Message]
    size_bytes: int


class Forked(Exception):
    """What is settled is not what this engine made: its history is not the exchange's."""


class Kept:
    def __init__(self, watermark: int) -> None:
        self._watermark = watermark
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._size_bytes = 0

    @property
    def watermark(self) -> int:
        return self._watermark

    @property
    def full(self) -> bool:
        return self._size_bytes > MOST_BYTES

    def add(self, first_sequence: int, last_sequence: int, chain: bytes, messages: list[Message]) -> None:
        size_bytes = sum(len(message.value) for message in messages)
        self._batches[first_sequence] = _Batch(last_sequence, chain, messages, size_bytes)
        self._size_bytes += size_bytes

    def settled(self, watermark: int, chain: bytes = GENESIS_CHAIN) -> None:
        """Forget what is settled. Raises Forked when the watermark's chain is not the one made here."""
        self._watermark = max(self._watermark, watermark)
        while self._batches:
            first_sequence, batch = next(iter(self._batches.items()))
            if batch.last_sequence > self._watermark:
                return
            if batch.last_sequence == watermark and batch.chain != chain:
                raise Forked(f"the settled batch at {watermark} has another chain")
            del self._batches[first_sequence]
            self._size_bytes -= batch.size_bytes

    def again(self, first_sequence: int) -> list[Message]:
        """The messages of a batch that came a second time; none when it is settled."""
        batch = self._batches.get(first_sequence)
        return batch.messages if batch else []

    def oldest(self) -> list[Message]:
        """The messages that settling waits for: of whole batches, one at least."""
        found: list[Message] = []
        size_bytes = 0
        for batch in self._batches.values():
            found += batch.messages
            size_bytes += batch.size_bytes
            if size_bytes >= OLDEST_BYTES:
                break
        return found
