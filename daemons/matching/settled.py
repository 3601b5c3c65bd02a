"""What PostgreSQL says of the partitions: how far they are settled, and what engines must arrive at."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from common.db import Connection

_SETTLED = """
SELECT w.partition, w.sequence, w.chain,
       (SELECT coalesce(max(act_id), 0) FROM operator_acts a WHERE a.partition = w.partition)
FROM watermarks w WHERE w.partition = ANY(%s)
"""
_DIGESTS = """
SELECT partition, sequence, market_id, digest FROM book_digests
JOIN unnest(%s::int[], %s::bigint[]) AS wanted (partition, sequence) USING (partition, sequence)
"""

Place = tuple[int, int]  # (partition, sequence)


@dataclass(frozen=True, slots=True)
class Settled:
    """The watermark of a partition; `last_act` grows when an operator resumes it or skips something."""

    sequence: int
    chain: bytes
    last_act: int


async def read_settled(connection: Connection, partitions: Collection[int]) -> dict[int, Settled]:
    cursor = await connection.execute(_SETTLED, [list(partitions)])
    return {partition: Settled(*rest) for partition, *rest in await cursor.fetchall()}


async def read_digests(connection: Connection, places: Iterable[Place]) -> dict[Place, dict[int, bytes]]:
    """The digests that were settled at these places, by market."""
    wanted = list(places)
    columns = [[place[index] for place in wanted] for index in (0, 1)]
    found: dict[Place, dict[int, bytes]] = {}
    cursor = await connection.execute(_DIGESTS, columns)
    for partition, sequence, market_id, digest in await cursor.fetchall():
        found.setdefault((partition, sequence), {})[market_id] = digest
    return found
