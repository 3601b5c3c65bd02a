"""I7's order: settled already, token, gap, fork; and several batches in one look."""

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


def judged(*deliveries: Delivery, sequence: int = 5) -> Outcome:
    return judge_all(deliveries, partition=0, sequence=sequence, chain=chain(sequence), matching_token=TOKEN)


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


def test_a_gap_keeps_what_came_before_it_and_leaves_what_comes_after() -> None:
    before = delivery(6, 6)
    outcome = judged(before, delivery(8, 8), delivery(7, 7))
    assert outcome.fresh == [before]
    assert (outcome.gap, outcome.fork) == (True, False)


def test_a_chain_that_does_not_fit_is_a_fork() -> None:
    before = delivery(6, 6)
    for wrong in (
        delivery(7, 7, previous=chain(99)),  # It does not continue the watermark.
        delivery(6, 7),  # It cuts the batches elsewhere.
        delivery(6, 6, own=chain(99)),  # It ends at the watermark with another history.
    ):
        outcome = judged(before, wrong, delivery(7, 7))
        assert outcome.fresh == [before]
        assert (outcome.gap, outcome.fork) == (False, True)


def test_the_batch_at_the_watermark_is_compared_by_its_chain() -> None:
    assert judged(delivery(4, 5)).told
    assert judged(delivery(4, 5, own=chain(99))).fork


def test_before_the_first_batch_a_second_one_is_a_gap() -> None:
    outcome = judge_all(
        [delivery(2, 2)], partition=0, sequence=0, chain=m.GENESIS_CHAIN, matching_token=TOKEN
    )
    assert outcome.gap
