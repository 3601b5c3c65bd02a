"""Gives a partition's commands their sequence, time and chain, and puts them into the outbox (I1, I2).

The caller's transaction has taken every other lock by now: the row of `shards` is the last one, held
until the commit, so that commit order is sequence order without gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.core.messages import Command
from common.core.sequencing import chain_of
from common.db import Connection, Cursor
from common.wire import encode_commands

_TAKE = """
SELECT last_sequence + 1,
       greatest(last_time_us + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
       chain
FROM shards WHERE partition = %s FOR NO KEY UPDATE
"""
_MOVE = "UPDATE shards SET last_sequence = %s, last_time_us = %s, chain = %s WHERE partition = %s"
_WRITE = """
INSERT INTO outbox (partition, first_sequence, last_sequence, time_us, previous_chain, chain, commands)
VALUES (%s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next batch of a partition will stand; locked until the transaction ends."""

    partition: int
    first_sequence: int
    time_us: int
    previous_chain: bytes


async def take(connection: Connection, partition: int) -> Place:
    """Lock the partition's row. Several partitions: by number (I9)."""
    return await taken(await ask(connection, partition), partition)


async def ask(connection: Connection, partition: int) -> Cursor:
    """The first half of `take`, for a pipeline: send the question."""
    return await connection.execute(_TAKE, [partition])


async def taken(cursor: Cursor, partition: int) -> Place:
    """The second half of `take`: read the answer."""
    row = await cursor.fetchone()
    assert row is not None, f"partition {partition} does not exist"
    return Place(partition, *row)


async def write(connection: Connection, place: Place, commands: Sequence[Command]) -> None:
    """Write the batch at its place: the outbox row, and the partition's number, time and chain after it."""
    body = encode_commands(commands)
    last_sequence = place.first_sequence + len(commands) - 1
    chain = chain_of(place.previous_chain, place.first_sequence, place.time_us, body)
    await connection.execute(_MOVE, [last_sequence, place.time_us, chain, place.partition])
    await connection.execute(
        _WRITE,
        [
            place.partition,
            place.first_sequence,
            last_sequence,
            place.time_us,
            place.previous_chain,
            chain,
            body,
        ],
    )
