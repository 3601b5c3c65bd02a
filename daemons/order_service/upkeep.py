"""What keeps the servers fit: hung transactions are ended, settled outbox rows go to the archive, idempotency
keys that have ended are removed, and topics that a wiped Kafka has lost are made again.
"""

from collections.abc import Awaitable, Callable

import anyio
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from common import db
from common.config import Settings
from common.health import Health
from common.telemetry import get_logger
from common.topics import ensure_topics
from daemons.order_service import idempotency

REAP_EVERY_S = 0.5
# Neither statement_timeout nor idle_in_transaction_session_timeout ends a COPY whose client hangs.
HUNG_S = 2.0
ARCHIVE_EVERY_S = 0.5
ARCHIVE_ROWS = 2_000
FORGET_EVERY_S = 1.0
FORGET_KEYS = 2_000
TOPICS_EVERY_S = 1.0
TOPICS_WITHIN_S = 5.0

REAPED = Counter("exchange_reaped_transactions_total", "Transactions that hung and were ended", ["session"])
ARCHIVED = Counter("exchange_archived_batches_total", "Outbox rows moved to the archive")
FORGOTTEN = Counter("exchange_forgotten_keys_total", "Idempotency keys removed after their time")

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

    async def move(connection: db.Connection) -> int:
        return (await connection.execute(_ARCHIVE, [ARCHIVE_ROWS])).rowcount

    await _in_steps(pool, ARCHIVE_EVERY_S, ARCHIVE_ROWS, move, ARCHIVED, "nothing archived")


async def forget_keys(pool: db.Pool) -> None:
    """Remove idempotency keys that have ended, in steps that let others pass."""

    async def remove(connection: db.Connection) -> int:
        return await idempotency.forget(connection, FORGET_KEYS)

    await _in_steps(pool, FORGET_EVERY_S, FORGET_KEYS, remove, FORGOTTEN, "no keys forgotten")


async def _in_steps(
    pool: db.Pool,
    every_s: float,
    most: int,
    step: Callable[[db.Connection], Awaitable[int]],
    done: Counter,
    otherwise: str,
) -> None:
    """Again and again, take steps of at most `most` rows until one takes fewer: nothing is left then."""
    while True:
        await anyio.sleep(every_s)
        try:
            async with pool.connection() as connection:
                rows = most
                while rows >= most:
                    rows = await step(connection)
                    done.inc(rows)
        except Exception as error:
            if not db.is_transient(error):
                raise
            log.warning(otherwise, error=str(error))


async def keep_topics(settings: Settings, health: Health) -> None:
    """Make again what a wiped Kafka has lost, and say whether Kafka answers.

    Orders are taken without it (the outbox keeps them), so that readiness shows it as degraded alone.
    """
    while True:
        try:
            with anyio.fail_after(TOPICS_WITHIN_S):
                await ensure_topics(settings)
            health.set("kafka", True, needed=False)
        except (KafkaError, OSError, TimeoutError) as error:
            health.set("kafka", False, repr(error), needed=False)
        await anyio.sleep(TOPICS_EVERY_S)
