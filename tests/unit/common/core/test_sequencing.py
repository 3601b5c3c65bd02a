import hashlib

import pytest

from common.core.messages import GENESIS_CHAIN, Batch, Noop, Skipped
from common.core.sequencing import Verdict, chain_of, is_due, judge, with_skips

HERE, OTHER, THERE = b"h" * 32, b"o" * 32, b"t" * 32


def test_the_chain_is_the_one_that_the_proto_describes() -> None:
    commands = hashlib.sha256(b"commands").digest()
    numbers = bytes([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0])
    expected = hashlib.sha256(GENESIS_CHAIN + numbers + commands).digest()
    assert chain_of(GENESIS_CHAIN, 1, 256, b"commands") == expected


def test_the_chain_covers_everything() -> None:
    chains = {
        chain_of(GENESIS_CHAIN, 1, 1, b"a"),
        chain_of(HERE, 1, 1, b"a"),
        chain_of(GENESIS_CHAIN, 2, 1, b"a"),
        chain_of(GENESIS_CHAIN, 1, 2, b"a"),
        chain_of(GENESIS_CHAIN, 1, 1, b"b"),
    }
    assert len(chains) == 5


@pytest.mark.parametrize(
    ("first", "last", "previous", "chain", "verdict"),
    [
        (11, 13, HERE, THERE, Verdict.NEXT),
        (11, 13, OTHER, THERE, Verdict.FORK),
        (12, 13, HERE, THERE, Verdict.GAP),
        (8, 10, OTHER, HERE, Verdict.SEEN),
        (8, 10, OTHER, THERE, Verdict.FORK),
        (1, 2, OTHER, THERE, Verdict.SEEN),
        (9, 11, HERE, THERE, Verdict.FORK),
    ],
)
def test_judge(first: int, last: int, previous: bytes, chain: bytes, verdict: Verdict) -> None:
    assert judge(10, HERE, first, last, previous, chain) is verdict


def test_the_first_batch_follows_genesis() -> None:
    assert judge(0, GENESIS_CHAIN, 1, 1, GENESIS_CHAIN, THERE) is Verdict.NEXT


def test_skips_pass_over_the_commands_at_their_sequences() -> None:
    commands = [Noop(0, "a"), Noop(0, "b"), Noop(0, "c")]
    batch = Batch(0, 5, 1, HERE, THERE, commands)
    assert with_skips(batch, frozenset()) is batch
    assert with_skips(batch, {4, 8}) is batch
    skipped = with_skips(batch, {6, 99})
    assert skipped.commands == [commands[0], Skipped(commands[1]), commands[2]]
    assert (skipped.first_sequence, skipped.last_sequence, skipped.chain) == (5, 7, THERE)
    assert with_skips(skipped, {6}) == skipped


def test_what_costs_as_much_as_the_book_comes_less_often_while_it_grows() -> None:
    steady = [sequence for sequence in range(1, 101) if is_due(sequence, sequence, 10, 30)]
    assert steady == [40, 80]
    growing = [sequence for sequence in range(1, 101) if is_due(sequence, sequence, 10, sequence)]
    assert growing == [10, 20, 40, 80]
    assert is_due(35, 45, 10, 30)
    assert not is_due(41, 79, 10, 30)
