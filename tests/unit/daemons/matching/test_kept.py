"""What is kept until it is settled: bounded, given again, and a fork is noticed."""

import pytest

from common.core.messages import GENESIS_CHAIN, Applied, Settlement
from common.topics import topics
from daemons.matching import kept as module
from daemons.matching.kept import Forked, Kept, KeptBatch
from tests.harness.servers import bare_settings

TOPICS = topics(bare_settings())


def chain(number: int) -> bytes:
    return bytes([number]) * 32


def batch(first: int, last: int) -> KeptBatch:
    return KeptBatch.of(
        Applied(Settlement(0, first, last, last, chain(first - 1), chain(last), 1)), 40 + first
    )


def three() -> Kept:
    kept = Kept(4)
    for first, last in ((5, 6), (7, 7), (8, 10)):
        kept.add(batch(first, last))
    return kept


def firsts(kept: Kept) -> list[int]:
    return [each.first_sequence for each in kept.all()]


def test_a_batch_is_given_again_until_it_is_settled() -> None:
    kept = three()
    assert firsts(kept) == [5, 7, 8]
    kept.settled(7, chain(7))
    assert kept.again(7, 7, chain(7)) is None
    assert kept.again(8, 10, chain(10)) is kept.all()[0]
    kept.settled(10, chain(10))
    assert kept.again(8, 10, chain(10)) is None
    assert (kept.all(), kept.size_bytes) == ([], 0)


@pytest.mark.parametrize("other", [(7, 7, chain(99)), (6, 6, chain(6)), (5, 8, chain(8))])
def test_another_batch_at_the_place_of_one_that_was_applied_is_a_fork(other: tuple[int, int, bytes]) -> None:
    with pytest.raises(Forked, match="another batch"):
        three().again(*other)


def test_its_events_are_the_same_each_time_and_know_where_the_commands_lie() -> None:
    one = batch(5, 6)
    [event] = one.events(TOPICS)
    assert one.events(TOPICS) == [event]
    assert (event.topic, event.token, event.source_offset) == (TOPICS.settlements, None, 45)


def test_a_watermark_with_another_chain_is_a_fork() -> None:
    kept = three()
    with pytest.raises(Forked, match="7"):
        kept.settled(7, chain(99))


def test_a_watermark_further_on_than_what_was_made_here_forgets_all() -> None:
    kept = three()  # Another leader settled it; the records that come are judged by the engine.
    kept.settled(50, chain(50))
    assert kept.all() == []


def test_what_others_have_settled_is_not_kept_but_compared() -> None:
    kept = three()
    kept.settled(20, chain(20))
    kept.add(batch(11, 15))
    assert kept.all() == []
    with pytest.raises(Forked, match="20"):
        kept.add(KeptBatch.of(Applied(Settlement(0, 16, 20, 9, chain(15), chain(99), 1)), 0))
    kept.add(batch(16, 20))
    kept.add(batch(21, 21))
    assert firsts(kept) == [21]


def test_a_watermark_read_late_changes_nothing() -> None:
    kept = three()
    kept.settled(7, chain(7))
    kept.settled(6, GENESIS_CHAIN)
    assert firsts(kept) == [8]


def test_it_is_full_past_its_bound_and_empties_by_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2.5 * module.ROW_BYTES)
    kept = Kept(0)
    for number in (1, 2):
        kept.add(batch(number, number))
        assert not kept.full
    kept.add(batch(3, 3))
    assert kept.full
    kept.settled(1, chain(1))
    assert not kept.full


def test_the_oldest_are_whole_batches_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OLDEST_BYTES", 1.5 * module.ROW_BYTES)
    assert [each.first_sequence for each in three().oldest()] == [5, 7]
