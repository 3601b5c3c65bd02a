"""What keeps the database fit: hung transactions are ended, settled outbox rows go to the archive."""

import anyio
from prometheus_client import Counter

from common import db
from common.telemetry import get_logger

REAP_EVERY_S = 0.5
# Neither statement_timeout nor idle_in_transaction_session_timeout ends a COPY whose client hangs.
HUNG_S = 2.0
ARCHIVE_EVERY_S = 0.5
ARCHIVE_ROWS = 2_000

REAPED = Counter("exchange_reaped_transactions_total", "Transactions that hung and were ended", ["session"])
ARCHIVED = Counter("exchange_archived_batches_total", "Outbox rows moved to the archive")

log = get_logger(__name__)

# Only sessions of the exchange: their names begin like this. A backup may take as long as it likes. Hung is
# whose client has been waited for since then: who waits for a lock goes on when the one that holds it has
# been ended, and a sweep whose TX2 keeps the server busy for long would be begun again for ever.
_REAP = """
SELECT application_name, pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'order-service %%' AND pid <> pg_backend_pid()
  AND state <> 'idle' AND wait_event_type = 'Client' AND xact_start IS NOT NULL
  AND greatest(query_start, state_change) < clock_timestamp() - make_interval(secs => %s)
"""
_ARCHIVE = """
WITH settled AS (
    DELETE FROM outbox o USING watermarks w
    WHERE w.partition = o.partition AND o.last_sequence <= w.sequence
      AND (o.partition, o.first_sequence) IN (
          SELECT p.partition, p.first_sequence FROM outbox p JOIN watermarks v USING (partition)
          WHERE p.last_sequence <= v.sequence LIMIT %s FOR UPDATE OF p SKIP LOCKED)
    RETURNING o.*
)
INSERT INTO outbox_archive SELECT * FROM settled ON CONFLICT DO NOTHING
"""


async def reap(pool: db.Pool) -> None:
    """End transactions whose client is silent for `HUNG_S`: a stopped process must not stop others."""
    while True:
        await anyio.sleep(REAP_EVERY_S)
        try:
            async with pool.connection() as connection:
                cursor = await connection.execute(_REAP, [HUNG_S])
                for session, ended in await cursor.fetchall():
                    if ended:
                        REAPED.labels(str(session).rstrip(" 0123456789")).inc()
                        log.warning("hung transaction ended", session=session)
        except Exception as error:
            if not db.is_transient(error):
                raise
            log.warning("nothing reaped", error=str(error))


async def archive(pool: db.Pool) -> None:
    """Move what is settled out of the outbox; a replay can start from the archive."""
    while True:
        await anyio.sleep(ARCHIVE_EVERY_S)
        try:
            async with pool.connection() as connection:
                moved = ARCHIVE_ROWS
                while moved >= ARCHIVE_ROWS:
                    moved = (await connection.execute(_ARCHIVE, [ARCHIVE_ROWS])).rowcount
                    ARCHIVED.inc(moved)
        except Exception as error:
            if not db.is_transient(error):
                raise
            log.warning("nothing archived", error=str(error))
