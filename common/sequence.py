"""Gives a partition's commands their sequence, time and chain, and puts them into the outbox (I1, I2).

The caller's transaction has taken every other lock by now: the row of `shards` is the last one, held
until the commit, so that commit order is sequence order without gaps.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from common.core.messages import Command
from common.db import Connection
from common.wire import encode_commands

OUTBOX_CHANNEL = "outbox"

# One statement: the number, the time and the chain of the batch, and its outbox row. PostgreSQL
# computes the same chain as `common.core.sequencing.chain_of`. The notification reaches the relays
# of every order-service when, and only when, the transaction commits.
_APPEND = """
WITH before AS (
    SELECT last_sequence, chain,
           greatest(last_time_us + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS time_us
    FROM shards WHERE partition = %(partition)s FOR NO KEY UPDATE
), after AS (
    UPDATE shards s
    SET last_sequence = b.last_sequence + %(count)s,
        last_time_us = b.time_us,
        chain = sha256(b.chain || int8send(b.last_sequence + 1) || int8send(b.time_us) || %(digest)s)
    FROM before b WHERE s.partition = %(partition)s
    RETURNING b.last_sequence + 1 AS first_sequence, s.last_sequence, b.time_us, b.chain AS previous_chain, s.chain
), written AS (
    INSERT INTO outbox (partition, first_sequence, last_sequence, time_us, previous_chain, chain, commands)
    SELECT %(partition)s, first_sequence, last_sequence, time_us, previous_chain, chain, %(commands)s FROM after
)
SELECT first_sequence, time_us, pg_notify(%(channel)s, %(partition)s::text) FROM after
"""


@dataclass(frozen=True, slots=True)
class Appended:
    first_sequence: int
    time_us: int


async def append(connection: Connection, partition: int, commands: Sequence[Command]) -> Appended:
    """Append one batch to the partition, inside the caller's transaction."""
    body = encode_commands(commands)
    cursor = await connection.execute(
        _APPEND,
        {
            "partition": partition,
            "count": len(commands),
            "digest": hashlib.sha256(body).digest(),
            "commands": body,
            "channel": OUTBOX_CHANNEL,
        },
    )
    row = await cursor.fetchone()
    assert row is not None, f"partition {partition} does not exist"
    first_sequence, time_us = row[0], row[1]
    assert isinstance(first_sequence, int)
    assert isinstance(time_us, int)
    return Appended(first_sequence, time_us)
