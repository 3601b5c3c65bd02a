"""What is kept until it is settled: bounded, given again, and a fork is noticed."""

import pytest

from common.kafka import Message
from daemons.matching import kept as module
from daemons.matching.kept import Forked, Kept


def chain(number: int) -> bytes:
    return bytes([number]) * 32


def messages(size_bytes: int = 10) -> list[Message]:
    return [Message("settlements", 0, bytes(size_bytes))]


def three() -> Kept:
    kept = Kept(4)
    for first, last in ((5, 6), (7, 7), (8, 10)):
        kept.add(first, last, chain(last), messages())
    return kept


def test_a_batch_is_given_again_until_it_is_settled() -> None:
    kept = three()
    assert [len(kept.again(first)) for first in (5, 7, 8)] == [1, 1, 1]
    kept.settled(7, chain(7))
    assert [len(kept.again(first)) for first in (5, 7, 8)] == [0, 0, 1]
    kept.settled(10, chain(10))
    assert kept.again(8) == []


def test_only_a_first_sequence_names_a_batch() -> None:
    assert three().again(6) == []
    assert three().again(4) == []


def test_a_watermark_with_another_chain_is_a_fork() -> None:
    kept = three()
    with pytest.raises(Forked, match="7"):
        kept.settled(7, chain(99))


def test_a_watermark_further_on_than_what_was_made_here_forgets_all() -> None:
    kept = three()  # Another leader settled it; the records that come are judged by the engine.
    kept.settled(50, chain(50))
    assert not any(kept.again(first) for first in (5, 7, 8))


def test_a_watermark_read_late_changes_nothing() -> None:
    kept = three()
    kept.settled(7, chain(7))
    kept.settled(6, chain(6))
    assert kept.again(8)


def test_it_is_full_past_its_bound_and_empties_by_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 25)
    kept = Kept(0)
    for number in (1, 2):
        kept.add(number, number, chain(number), messages())
        assert not kept.full
    kept.add(3, 3, chain(3), messages())
    assert kept.full
    kept.settled(1, chain(1))
    assert not kept.full
    kept.settled(3, chain(3))
    kept.add(4, 4, chain(4), messages(26))
    assert kept.full
