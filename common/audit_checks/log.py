"""The log: what TX1 wrote, how far it is settled, and that it does not pile up."""

# ruff: noqa: S608  # The queries are put together from constants of this package.

from common.audit_checks.check import COUNT_LOG, GENESIS, LOG, Check

# The archive follows the watermark every half second; more than this means that it has stopped.
MOST_SETTLED_BATCHES = 10_000
# Commands that TX1 accepted and TX2 has not settled: the relay, the engine or the settler has stopped.
MOST_WAITING_COMMANDS = 1_000_000

LOG_CHECKS = (
    Check(
        "the batches of every partition follow each other from sequence 1, each once",
        COUNT_LOG,
        f"""
        WITH pairs AS (
            SELECT *, lag(last_sequence, 1, 0::bigint) OVER w AS sequence_before,
                   lag(chain, 1, {GENESIS}) OVER w AS chain_before,
                   lag(time_us, 1, 0::bigint) OVER w AS time_before
            FROM ({LOG}) log WINDOW w AS (PARTITION BY partition ORDER BY first_sequence, last_sequence))
        SELECT partition, first_sequence, last_sequence, sequence_before FROM pairs
        WHERE first_sequence <> sequence_before + 1 OR last_sequence < first_sequence
           OR previous_chain <> chain_before OR time_us <= time_before
        """,
    ),
    Check(
        "every batch's chain covers its bytes",
        COUNT_LOG,
        """
        SELECT partition, first_sequence FROM (SELECT * FROM outbox UNION ALL SELECT * FROM outbox_archive) l
        WHERE chain <> sha256(previous_chain || int8send(first_sequence) || int8send(time_us)
                              || sha256(commands))
        """,
    ),
    Check(
        "every partition counts to the end of its log",
        "count(*) FROM shards",
        f"""
        SELECT partition, s.last_sequence AS counted, l.last_sequence AS logged
        FROM shards s FULL JOIN (
            SELECT DISTINCT ON (partition) * FROM ({LOG}) log ORDER BY partition, first_sequence DESC) l
        USING (partition)
        WHERE s.last_sequence IS NULL
           OR (s.last_sequence, s.last_time_us, s.chain)
              <> (coalesce(l.last_sequence, 0), coalesce(l.time_us, 0), coalesce(l.chain, {GENESIS}))
        """,
    ),
    Check(
        "every watermark stands at the end of a batch, on its chain",
        "count(*) FROM watermarks",
        f"""
        SELECT partition, w.sequence AS watermark, s.last_sequence
        FROM shards s FULL JOIN watermarks w USING (partition)
        LEFT JOIN (SELECT partition AS of, last_sequence AS sequence, chain, time_us FROM ({LOG}) log
                   UNION ALL SELECT partition, 0, {GENESIS}, 0 FROM shards) l
            ON l.of = w.partition AND l.chain = w.chain
        WHERE w.sequence IS NULL OR s.last_sequence IS NULL
           OR (w.sequence, w.time_us) IS DISTINCT FROM (l.sequence, l.time_us)
        """,
    ),
    Check(
        "every relay stands at the end of a batch",
        "count(*) FROM relay_cursors",
        f"""
        SELECT partition, c.next_sequence, s.last_sequence
        FROM shards s FULL JOIN relay_cursors c USING (partition)
        LEFT JOIN (SELECT partition, last_sequence + 1 AS next_sequence FROM ({LOG}) log
                   UNION ALL SELECT partition, 1 FROM shards) l USING (partition, next_sequence)
        WHERE c.next_sequence IS NULL OR s.last_sequence IS NULL OR l.partition IS NULL
        """,
    ),
    Check(
        "nothing is archived before it is settled",
        "count(*) FROM outbox_archive",
        """
        SELECT a.partition, a.first_sequence, w.sequence AS watermark
        FROM outbox_archive a LEFT JOIN watermarks w USING (partition)
        WHERE a.last_sequence > coalesce(w.sequence, 0)
        """,
    ),
    Check(
        f"the outbox is drained: at most {MOST_SETTLED_BATCHES:,} settled batches in it, and"
        f" {MOST_WAITING_COMMANDS:,} commands of a partition to settle",
        "count(*) FROM outbox",
        f"""
        SELECT partition, coalesce(o.batches, 0) AS settled_batches, s.last_sequence - w.sequence AS waiting
        FROM shards s JOIN watermarks w USING (partition)
        LEFT JOIN (SELECT o.partition, count(*) AS batches FROM outbox o JOIN watermarks w USING (partition)
                   WHERE o.last_sequence <= w.sequence GROUP BY 1) o USING (partition)
        WHERE coalesce(o.batches, 0) > {MOST_SETTLED_BATCHES}
            OR s.last_sequence - w.sequence > {MOST_WAITING_COMMANDS}
        """,
    ),
)
