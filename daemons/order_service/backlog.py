"""How much is durable and not settled yet; where that is too much, new orders wait outside.

TX1 is faster than TX2: without a bound a long rush would be accepted in seconds and traded minutes later.
Cancels are always taken, and an order that was placed already is answered.

Does not promise: the bound to the order. Between two looks at the watermarks it knows of this process's own
commits, not of those of others.
"""

from prometheus_client import Gauge

from common.core.units import MAX_INT64

CROWDED = Gauge("exchange_partition_crowded", "1 while new orders are answered BUSY", ["partition"])


class Backlog:
    """By partition, so that one that stands still takes no orders from the others."""

    def __init__(self, most: int = MAX_INT64) -> None:
        """`most`: commands of one partition that may wait."""
        assert most > 0
        self._most = most
        self._waiting: dict[int, int] = {}

    def seen(self, partition: int, waiting: int) -> None:
        """So many commands lie above the partition's watermark."""
        self._waiting[partition] = waiting
        CROWDED.labels(partition).set(waiting >= self._most)

    def grown(self, partition: int, commands: int) -> None:
        """So many more have been committed here."""
        self._waiting[partition] = self._waiting.get(partition, 0) + commands

    def crowded(self) -> dict[int, int]:
        """The partitions that have enough to do, and how many commands wait in each."""
        return {partition: waiting for partition, waiting in self._waiting.items() if waiting >= self._most}
