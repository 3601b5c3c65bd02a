"""The hash chain over the command batches of a partition, and what a reader makes of a batch.

Every reader of the log (engine, settler, replay) stands at a sequence with a chain and asks `judge`
about each batch that arrives; DESIGN I4 and I7 say what it then does.
"""

from collections.abc import Collection
from dataclasses import replace
from enum import Enum
from hashlib import sha256

from common.core.messages import Batch, Skipped


class Verdict(Enum):
    NEXT = "next"  # Apply it.
    SEEN = "seen"  # Applied before; do not apply it again.
    GAP = "gap"  # Something is missing before it; ask for a rewind.
    FORK = "fork"  # Another history; stop.


def chain_of(previous_chain: bytes, first_sequence: int, time_us: int, commands: bytes) -> bytes:
    """The 32-byte chain after a batch; `commands` are the bytes of its Commands message.

    SHA-256(previous_chain + first_sequence + time_us + SHA-256(commands)), numbers as 8 bytes,
    big-endian (events.proto, CommandBatch.chain).
    """
    assert len(previous_chain) == 32
    digest = sha256(previous_chain)
    digest.update(first_sequence.to_bytes(8, "big"))
    digest.update(time_us.to_bytes(8, "big"))
    digest.update(sha256(commands).digest())
    return digest.digest()


def judge(
    sequence: int,
    chain: bytes,
    batch_first: int,
    batch_last: int,
    batch_previous_chain: bytes,
    batch_chain: bytes,
) -> Verdict:
    """What a batch is to a reader that has applied everything up to `sequence`, whose chain is `chain`.

    Batch boundaries are the same in every replay, so a batch that straddles `sequence` is a fork.
    """
    assert 0 < batch_first <= batch_last, "a batch has at least one command"
    if batch_last < sequence:
        return Verdict.SEEN
    if batch_last == sequence:
        return Verdict.SEEN if batch_chain == chain else Verdict.FORK
    if batch_first <= sequence:
        return Verdict.FORK
    if batch_first > sequence + 1:
        return Verdict.GAP
    return Verdict.NEXT if batch_previous_chain == chain else Verdict.FORK


def with_skips(batch: Batch, skips: Collection[int]) -> Batch:
    """The batch as every engine sees it: the commands at the sequences in `skips` are passed over.

    An operator's skip is part of the log, beside the chain, which goes on covering what TX1 wrote.
    """
    last_sequence = batch.last_sequence
    if not any(batch.first_sequence <= sequence <= last_sequence for sequence in skips):
        return batch
    commands = [
        Skipped(command) if sequence in skips and not isinstance(command, Skipped) else command
        for sequence, command in enumerate(batch.commands, batch.first_sequence)
    ]
    return replace(batch, commands=commands)


def is_due(first_sequence: int, last_sequence: int, least: int, resting_orders: int) -> bool:
    """Whether a batch passes a place where something is done that costs as much as all resting orders.

    The places are the multiples of a power of two times `least` that is not below `resting_orders`: what it
    costs a command stays the same while the books grow. Sequences alone decide, so every engine and every
    replay does it at the same places.
    """
    every = least
    while every < resting_orders:
        every *= 2
    return last_sequence // every != (first_sequence - 1) // every
