"""Gives a partition's commands their sequence, time and chain, and puts them into the outbox (I1, I2).

The caller's transaction has taken every other lock by now: the row of `shards` is the last one, held
until the commit, so that commit order is sequence order without gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import TupleRow

from common.core.messages import Command
from common.core.sequencing import chain_of
from common.db import Connection
from common.trip import Asked
from common.wire import encode_commands

_TAKE = """
SELECT partition, last_sequence + 1,
       greatest(last_time_us + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint),
       chain
FROM shards WHERE partition = ANY(%s::int[]) ORDER BY partition FOR NO KEY UPDATE
"""
_WRITE = """
WITH moved AS (UPDATE shards SET last_sequence = %s, last_time_us = %s, chain = %s WHERE partition = %s)
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
    """Lock the partition's row."""
    cursor = await connection.execute(*asked([partition]))
    [place] = taken(await cursor.fetchall(), [partition])
    return place


async def write(connection: Connection, place: Place, commands: Sequence[Command]) -> None:
    """Write the batch at its place: the outbox row, and the partition's number, time and chain after it."""
    await connection.execute(*written(place, commands))


def asked(partitions: Sequence[int]) -> Asked:
    """For a trip: the statement that takes several partitions, which it locks by number (I9)."""
    return _TAKE, ["{" + ",".join(map(str, partitions)) + "}"]


def taken(rows: Sequence[TupleRow], partitions: Sequence[int]) -> list[Place]:
    """The places by number, from the rows that `asked` gave."""
    places = [Place(*row) for row in rows]
    assert [place.partition for place in places] == sorted(partitions), f"{partitions}: not all exist"
    return places


def written(place: Place, commands: Sequence[Command]) -> Asked:
    """For a trip: the statement of `write`."""
    body = encode_commands(commands)
    last_sequence = place.first_sequence + len(commands) - 1
    chain = chain_of(place.previous_chain, place.first_sequence, place.time_us, body)
    return _WRITE, [
        *(last_sequence, place.time_us, chain, place.partition),
        *(place.partition, place.first_sequence, last_sequence, place.time_us),
        *(place.previous_chain, chain, body),
    ]
