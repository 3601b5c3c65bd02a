"""Brings a database to the schema that this code needs; may be run at any time, twice at once too."""

from importlib import resources

import psycopg
from psycopg import sql

from common.core.messages import GENESIS_CHAIN

# Any number, the same in every version: only one migration at a time.
_MIGRATION_LOCK = 6_205_518_421


class PartitionsAreFixed(RuntimeError):
    """The exchange was created with another number of partitions."""


async def migrate(postgres_url: str, partitions: int) -> list[str]:
    """Apply what is missing and give its names. Raises PartitionsAreFixed rather than reshuffle markets."""
    connection = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
    async with connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations"
            " (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        cursor = await connection.execute("SELECT name FROM schema_migrations")
        applied = {str(name) for (name,) in await cursor.fetchall()}
        fresh = []
        for name, script in _scripts():
            if name not in applied:
                await connection.execute(script)
                await connection.execute("INSERT INTO schema_migrations (name) VALUES (%s)", [name])
                fresh.append(name)
        await _lay_partitions(connection, partitions)
        return fresh


def _scripts() -> list[tuple[str, bytes]]:
    folder = resources.files("common.migrations")
    found = [(entry.name, entry.read_bytes()) for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(found)


async def _lay_partitions(connection: psycopg.AsyncConnection, partitions: int) -> None:
    cursor = await connection.execute("SELECT count(*) FROM shards")
    row = await cursor.fetchone()
    present = int(row[0]) if row else 0
    if present not in (0, partitions):
        raise PartitionsAreFixed(
            f"This exchange has {present} partitions for ever; EXCHANGE_PARTITIONS is {partitions}"
        )
    given = {"chain": GENESIS_CHAIN, "p": list(range(partitions))}
    for target, values in (
        ("shards (partition, chain)", "p, %(chain)s"),
        ("watermarks (partition, chain)", "p, %(chain)s"),
        ("relay_cursors (partition)", "p"),
        ("users (user_id, name)", "-(p + 1), 'fees of partition ' || p"),
    ):
        await connection.execute(
            sql.SQL("INSERT INTO {} SELECT {} FROM unnest(%(p)s::int[]) p ON CONFLICT DO NOTHING").format(
                sql.SQL(target), sql.SQL(values)
            ),
            given,
        )
