"""I7's order: settled already, token, gap, fork; and several batches in one look."""

from collections.abc import Mapping

import pytest

from common.core import messages as m
from daemons.order_service.settlement import Delivery, Outcome, judge_all

TOKEN = 7


def chain(number: int) -> bytes:
    return bytes([number]) * 32


def delivery(
    first: int, last: int, *, token: int = TOKEN, previous: bytes | None = None, own: bytes | None = None
) -> Delivery:
    """A batch whose chain is named after its last sequence."""
    settlement = m.Settlement(0, first, last, 1, previous or chain(first - 1), own or chain(last), 1)
    return Delivery(settlement, token, 10 * first, 0)


def judged(*deliveries: Delivery, sequence: int = 5, promised: Mapping[int, bytes] | None = None) -> Outcome:
    """Everything was promised as it comes, unless the test says otherwise."""
    as_it_comes = {each.settlement.first_sequence: each.settlement.chain for each in deliveries}
    return judge_all(
        deliveries,
        partition=0,
        sequence=sequence,
        chain=chain(sequence) if sequence else m.GENESIS_CHAIN,
        matching_token=TOKEN,
        promised=as_it_comes if promised is None else promised,
    )


def test_batches_that_follow_are_settled_together() -> None:
    batches = [delivery(6, 7), delivery(8, 8), delivery(9, 12)]
    outcome = judged(*batches)
    assert outcome.fresh == batches
    assert outcome.told == [batch.settlement for batch in batches]
    assert (outcome.gap, outcome.fork) == (False, False)


def test_what_is_settled_is_told_again_whoever_sent_it() -> None:
    old, stale = delivery(4, 5), delivery(1, 3, token=TOKEN - 1)
    outcome = judged(stale, old)
    assert outcome.told == [stale.settlement, old.settlement]
    assert outcome.fresh == []


def test_a_batch_that_comes_twice_in_one_look_is_settled_once() -> None:
    first, second = delivery(6, 6), delivery(7, 7)
    outcome = judged(first, first, second, first)
    assert outcome.fresh == [first, second]
    assert len(outcome.told) == 4


def test_another_token_is_passed_over_and_stops_nothing() -> None:
    for token in (TOKEN - 1, TOKEN + 1):
        stale, right = delivery(6, 7, token=token), delivery(6, 7)
        outcome = judged(stale, right)
        assert outcome.fresh == [right]
        assert outcome.told == [right.settlement]


def test_the_token_is_looked_at_before_gap_and_fork() -> None:
    gap, fork = delivery(9, 9, token=1), delivery(6, 6, token=1, previous=chain(99))
    outcome = judged(gap, fork)
    assert (outcome.gap, outcome.fork, outcome.told) == (False, False, [])


def test_what_fills_a_gap_may_come_after_it() -> None:
    """As it does after a rewind; what came too early must come again."""
    before, filling = delivery(6, 6), delivery(7, 7)
    outcome = judged(before, delivery(8, 8), filling)
    assert outcome.fresh == [before, filling]
    assert (outcome.gap, outcome.fork) == (True, False)
    again = judged(delivery(8, 8), before, filling, delivery(8, 8))
    assert [each.settlement.first_sequence for each in again.fresh] == [6, 7, 8]
    assert not again.gap


def test_a_promise_that_does_not_continue_the_watermark_is_a_fork() -> None:
    """TX1's own record contradicts what is settled: nothing may go on."""
    before = delivery(6, 6)
    outcome = judged(before, delivery(7, 7, previous=chain(99)), delivery(8, 8))
    assert outcome.fresh == [before]
    assert (outcome.gap, outcome.fork) == (False, True)


def test_the_batch_at_the_watermark_is_compared_by_its_chain() -> None:
    assert judged(delivery(4, 5)).told
    assert judged(delivery(4, 5, own=chain(99))).fork


@pytest.mark.parametrize("wrong", [delivery(6, 7), delivery(6, 6, own=chain(99))])
def test_another_history_that_nobody_promised_stops_nothing(wrong: Delivery) -> None:
    before, after = delivery(6, 6), delivery(7, 7)
    outcome = judged(before, wrong, after, promised={6: chain(6), 7: chain(7)})
    assert outcome.fresh == [before, after]
    assert (outcome.gap, outcome.fork) == (False, False)


def test_before_the_first_batch_a_second_one_is_a_gap() -> None:
    assert judged(delivery(2, 2), sequence=0).gap


def test_what_was_made_of_a_lost_commit_is_passed_over() -> None:
    """It continues the watermark like the batch that has its place now, which is settled."""
    lost, right = delivery(6, 7, own=chain(99)), delivery(6, 6)
    after_lost = delivery(8, 8, previous=chain(99), own=chain(98))
    outcome = judged(lost, after_lost, right, promised={6: chain(6)})
    assert outcome.fresh == [right]
    assert (outcome.gap, outcome.fork) == (False, False)


def test_nobody_is_told_of_what_was_never_promised() -> None:
    outcome = judged(delivery(4, 4, own=chain(99)), delivery(5, 5), promised={4: chain(4), 5: chain(5)})
    assert [batch.first_sequence for batch in outcome.told] == [5]
