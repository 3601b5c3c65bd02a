"""Checks the money and the books of an exchange, running or stopped, in one snapshot (I7, I10).

Each check of `audit_checks` is a query that counts what it looked at and one that selects the rows that
must not be there. It only reads, and it takes no locks that anybody would wait for.

Does not promise: that what happened was right, only that the tables agree with each other and with the
log. Whether the engine would do the same again is for the replay.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.audit_checks import CHECKS, Check
from common.db import Connection
from common.snapshot import one_snapshot

MOST_ROWS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `rows` are the first of those that break it, `columns` their names."""

    name: str
    looked_at: int
    columns: Sequence[str]
    rows: Sequence[tuple[object, ...]]

    @property
    def ok(self) -> bool:
        return not self.rows


async def audit(connection: Connection) -> list[Finding]:
    """Run every check in one snapshot; the connection is not inside a transaction yet."""
    async with one_snapshot(connection):
        return await run_checks(connection)


async def run_checks(connection: Connection) -> list[Finding]:
    """Run every check in the transaction of the caller."""
    return [await _run(connection, check) for check in CHECKS]


async def _run(connection: Connection, check: Check) -> Finding:
    # Constants of `audit_checks`, all of them.
    counted = await (await connection.execute(f"SELECT {check.looked_at}".encode())).fetchone()
    assert counted is not None
    cursor = await connection.execute(f"{check.violations} LIMIT {MOST_ROWS}".encode())
    columns = [column.name for column in cursor.description or ()]
    return Finding(check.name, int(counted[0]), columns, await cursor.fetchall())
