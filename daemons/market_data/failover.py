"""Notices that PostgreSQL has lost commits: a watermark that goes back says so.

What was told since may then not be so, sequences and fencing tokens come a second time, and everything in
this process believes the first ones. A fresh start is the cure: its clients subscribe again.
"""

from collections.abc import Callable

import anyio

from common import db
from common.telemetry import get_logger

LOOK_EVERY_S = 1.0
_WATERMARKS = "SELECT partition, sequence FROM watermarks"

log = get_logger(__name__)


async def until_commits_are_lost(pool: db.Pool, stop: Callable[[str], None]) -> None:
    """Look until a watermark goes back; then `stop` the process, which its supervisor starts again."""
    highest: dict[int, int] = {}
    while True:
        await anyio.sleep(LOOK_EVERY_S)
        try:
            async with pool.connection() as connection:
                found = await (await connection.execute(_WATERMARKS)).fetchall()
        except Exception as error:
            if not db.is_transient(error):
                raise
            log.warning("watermarks not seen", error=str(error))
            continue
        for partition, sequence in found:
            if sequence < highest.get(partition, 0):
                stop(f"PostgreSQL has lost commits: the watermark of {partition} is {sequence} again")
                return
            highest[partition] = sequence
