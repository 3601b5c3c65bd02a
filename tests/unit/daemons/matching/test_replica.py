"""A backlog is published in slices, so that its leader can renew its lease meanwhile."""

from collections.abc import Sequence

import anyio
import pytest

from common.config import Settings
from common.core import messages as m
from common.core.engine import Engine
from common.core.sequencing import chain_of
from common.kafka import Message, Record
from common.lease import Lease
from common.wire import encode_batch, encode_commands
from daemons.matching import kept
from daemons.matching import replica as module
from daemons.matching.kept import Kept
from daemons.matching.replica import Replica, _Lead

pytestmark = pytest.mark.anyio

BATCHES = 20


class Sent:
    """A producer that remembers how often it was asked."""

    def __init__(self) -> None:
        self.rounds: list[int] = []

    async def send_many(self, messages: Sequence[Message]) -> list[int]:
        self.rounds.append(len(messages))
        return [0] * len(messages)


class Backlog:
    """A reader that has everything at once, and then nothing more."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    async def poll(self, **_: object) -> list[Record]:
        if not self._records:
            await anyio.sleep_forever()
        found, self._records = self._records, []
        return found


def backlog() -> list[Record]:
    records, chain = [], m.GENESIS_CHAIN
    for sequence in range(1, BATCHES + 1):
        body = encode_commands([m.Noop(0, "test")])
        before, chain = chain, chain_of(chain, sequence, sequence, body)
        value = encode_batch(
            partition=0,
            first_sequence=sequence,
            time_us=sequence,
            previous_chain=before,
            chain=chain,
            commands=body,
        )
        records.append(Record(sequence, value, 0, -1))
    return records


def standing(reasons: list[str]) -> tuple[Replica, Sent, _Lead]:
    async def ask_rewind(_partition: int, _reason: str) -> None:
        raise AssertionError("nothing is missing")

    sent = Sent()
    replica = Replica(Settings(), sent, ask_rewind, lambda _, reason: reasons.append(reason))  # type: ignore[arg-type]  # as much of a producer as it needs
    return replica, sent, _Lead(Lease("matching", 0, 1, "test"), Engine(0), Kept(0))


async def consume(replica: Replica, lead: _Lead, records: list[Record]) -> None:
    with anyio.move_on_after(0.5):
        await replica._consume(lead, Backlog(records))  # type: ignore[arg-type]  # as much of a reader as it needs


async def test_a_backlog_is_published_slice_by_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    replica, sent, lead = standing([])
    await consume(replica, lead, backlog())
    assert sent.rounds == [1] * BATCHES
    assert lead.engine.sequence == BATCHES


async def test_what_stands_before_a_broken_record_is_published() -> None:
    reasons: list[str] = []
    replica, sent, lead = standing(reasons)
    await consume(replica, lead, [*backlog(), Record(99, b"\xff", 0, -1)])
    assert sum(sent.rounds) == BATCHES
    assert "offset 99" in reasons[0]


async def test_what_kafka_lost_is_published_again_even_when_nothing_more_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "WATERMARK_EVERY_S", 0.005)
    monkeypatch.setattr(kept, "MOST_BYTES", 0)  # Full from the first batch on.
    replica, sent, lead = standing([])
    await consume(replica, lead, backlog())
    assert sent.rounds[:2] == [BATCHES, BATCHES]
    lead.kept.settled(BATCHES, lead.engine.chain)
    assert lead.kept.oldest() == []


def test_the_oldest_are_whole_batches_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "OLDEST_BYTES", 15)
    held = Kept(0)
    for number in (1, 2, 3):
        held.add(number, number, bytes(32), [Message("settlements", 0, bytes(10))])
    assert len(held.oldest()) == 2
