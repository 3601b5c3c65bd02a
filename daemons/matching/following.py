"""An engine from one restore on: applies batches, keeps their events, compares digests.

Computes and remembers; talks to nobody. Whatever it raises, it is to be thrown away: another restore
makes the next.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from common.core.engine import Engine, Pause
from common.core.messages import Applied, Batch
from common.core.sequencing import Verdict, is_due, judge, with_skips
from common.kafka import Message
from common.topics import Topics
from daemons.matching import metrics
from daemons.matching.kept import Forked, Kept, KeptBatch
from daemons.matching.outbound import book_messages
from daemons.matching.settled import Settled

# Full books now and then, so that a new market-data starts without asking anyone.
FULL_BOOKS_EVERY = 256


class Outdated(Exception):
    """An operator has acted: the log is another one than this engine knew."""


@dataclass(slots=True)
class Made:
    """What one batch gave: `messages` are what a leader publishes of it, without a token."""

    applied: Applied
    kept: KeptBatch
    messages: list[Message]


class Following:
    """`caught_up`: it has read what exchange.orders held when it began."""

    def __init__(self, engine: Engine, topics: Topics, skips: Collection[int], last_act: int) -> None:
        self.engine = engine
        self.kept = Kept(engine.sequence, engine.chain)
        self.caught_up = False
        self._topics = topics
        self._skips = skips
        self.last_act = last_act
        self._digests: dict[int, dict[int, bytes]] = {}  # Not compared yet, by sequence and market.

    @property
    def partition(self) -> int:
        return self.engine.partition

    def judge(self, batch: Batch) -> Verdict:
        return judge(
            self.engine.sequence,
            self.engine.chain,
            batch.first_sequence,
            batch.last_sequence,
            batch.previous_chain,
            batch.chain,
        )

    def compute(self, batch: Batch, orders_offset: int, *, leading: bool, pause: Pause | None = None) -> Made:
        """Apply the next batch. Only computes: may run in a thread, with nothing else touching the engine.

        There it wants a `pause` that lets the other threads go on (see `Engine.restore`).
        """
        applied = self.engine.apply(with_skips(batch, self._skips), pause)
        kept = KeptBatch.of(applied, orders_offset)
        if not leading:
            return Made(applied, kept, [])
        books = applied.books
        if is_due(batch.first_sequence, batch.last_sequence, FULL_BOOKS_EVERY, self.engine.resting_orders):
            books = self.engine.books()
        return Made(
            applied, kept, kept.events(self._topics) + book_messages(books, self._topics, self.partition)
        )

    def keep(self, made: Made) -> None:
        """Remember what was computed until it is settled."""
        settlement = made.applied.settlement
        self.kept.add(made.kept)
        if settlement.digests:
            self._digests[settlement.last_sequence] = {
                each.market_id: each.digest for each in settlement.digests
            }
        metrics.APPLIED.labels(self.partition).inc(settlement.last_sequence + 1 - settlement.first_sequence)
        metrics.TRADES.labels(self.partition).inc(len(settlement.trades))

    def books(self) -> list[Message]:
        """The full book of every market as it is now."""
        return book_messages(self.engine.books(), self._topics, self.partition)

    def settled(self, now: Settled) -> None:
        """Forget what is settled. Raises Forked, and Outdated when an operator has acted meanwhile."""
        if now.last_act != self.last_act:
            raise Outdated(f"act {now.last_act} of an operator")
        self.kept.settled(now.sequence, now.chain)

    def wanted_digests(self) -> list[int]:
        """The sequences at which this engine has digests and the settled ones should be there."""
        return [sequence for sequence in self._digests if sequence <= self.kept.watermark]

    def compare_digests(self, asked: Iterable[int], settled: Mapping[int, Mapping[int, bytes]]) -> None:
        """Compare with what was settled at the sequences asked for. Raises Forked where they differ."""
        for sequence in asked:
            own, found = self._digests.pop(sequence), settled.get(sequence)
            if found is None:
                continue  # Settled by a version that took none.
            same = found == own
            metrics.DIGESTS.labels(self.partition, "yes" if same else "no").inc()
            if not same:
                raise Forked(f"the books at {sequence} are not those that were settled")
