"""After every failover: everything accepted is settled, and audit and replay find nothing."""

import anyio

from common import db
from common.audit import audit
from common.replay import replay

SETTLED_S = 20.0

_BEHIND = "SELECT sum(last_sequence - sequence) FROM shards JOIN watermarks USING (partition)"


async def settled(connection: db.Connection) -> None:
    """Until every accepted order is settled. Raises TimeoutError."""
    with anyio.fail_after(SETTLED_S):
        while await (await connection.execute(_BEHIND)).fetchone() != (0,):
            await anyio.sleep(0.05)


async def check(connection: db.Connection, seed: int) -> None:
    """Nobody trades any more."""
    await settled(connection)
    assert [finding for finding in await audit(connection) if not finding.ok] == []
    report = await replay(connection, points=2, seed=seed, progress=print)
    assert report.ok, report
