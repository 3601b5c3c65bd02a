"""Idempotency keys, where they are true: a row for each key, claimed by one request at a time.

A claim is taken over when its claimant has been silent for TAKE_OVER_S. The first one may live and work
all the same (a frozen gateway): that is harmless, because what is done under a key is named after it and so
done once, and because the first answer that is settled stands for all.

Does not promise: that a key outlives 24 hours. From then on it begins anew.
"""

from collections.abc import Iterable, Sequence

from psycopg.rows import TupleRow

from common.core.errors import Malformed, Unavailable
from common.db import Connection, Pool, is_transient
from exchange.v1 import internal_pb2 as internal

KEPT_HOURS = 24
TAKE_OVER_S = 12.0  # Later than anything begins or commits that a claimant started in time.
MOST = 100  # Keys of one call.
MOST_BYTES = 255
FINGERPRINT_BYTES = 32

# Sorted, so that two batches with the same keys cannot wait for each other (I9: after everything else).
_CLAIM = """
INSERT INTO idempotency_keys AS k (user_id, key, fingerprint, claimant, claimed_at, created_at)
SELECT user_id, key, fingerprint, claimant, now(), now()
FROM unnest(%(users)s::bigint[], %(keys)s::text[], %(fingerprints)s::bytea[], %(claimants)s::bigint[])
    AS w (user_id, key, fingerprint, claimant)
ORDER BY user_id, key COLLATE "C"
ON CONFLICT (user_id, key) DO UPDATE
SET fingerprint = excluded.fingerprint, claimant = excluded.claimant, claimed_at = excluded.claimed_at,
    created_at = CASE WHEN k.created_at > now() - make_interval(hours => %(hours)s)
                      THEN k.created_at ELSE excluded.created_at END,
    effect = CASE WHEN k.created_at > now() - make_interval(hours => %(hours)s) THEN k.effect END,
    answer = NULL
WHERE k.created_at <= now() - make_interval(hours => %(hours)s)
   OR (k.answer IS NULL AND k.fingerprint = excluded.fingerprint
       AND k.claimed_at <= now() - make_interval(secs => %(silent_s)s))
"""
_SETTLE = """
WITH mine AS (
    SELECT k.user_id, k.key, w.answer
    FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bytea[]) AS w (user_id, key, claimant, answer)
    JOIN idempotency_keys k ON k.user_id = w.user_id AND k.key = w.key AND k.claimant = w.claimant
    WHERE k.answer IS NULL ORDER BY k.user_id, k.key FOR NO KEY UPDATE OF k
)
UPDATE idempotency_keys k
SET answer = CASE WHEN length(mine.answer) > 0 THEN mine.answer END,
    claimant = CASE WHEN length(mine.answer) > 0 THEN k.claimant ELSE 0 END,
    claimed_at = CASE WHEN length(mine.answer) > 0 THEN k.claimed_at ELSE '-infinity' END
FROM mine WHERE k.user_id = mine.user_id AND k.key = mine.key
"""
# LATERAL keeps the plan at one index probe for each key.
_STATES = """
SELECT k.user_id, k.key, k.claimant, k.fingerprint, k.answer,
       (extract(epoch FROM k.created_at) * 1000000)::bigint
FROM unnest(%s::bigint[], %s::text[]) AS w (user_id, key), LATERAL (
    SELECT * FROM idempotency_keys WHERE user_id = w.user_id AND key = w.key LIMIT 1
) k
"""
_FORGET = """
DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM idempotency_keys WHERE created_at <= now() - make_interval(hours => %s)
    ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED))
"""

Asked = internal.KeyClaim | internal.KeySettlement


class Keys:
    """Claims and settles for the gateways. Both may be repeated: the claimant's number tells."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, claims: Sequence[internal.KeyClaim]) -> list[internal.KeyState]:
        """Claim what is free, expired, or left by a claimant who is silent; raises Malformed, Unavailable."""
        check(claims)
        first: dict[tuple[int, str], internal.KeyClaim] = {}
        for claim in claims:
            first.setdefault((claim.user_id, claim.key), claim)  # One statement takes each key once.
        given = {
            "users": [claim.user_id for claim in first.values()],
            "keys": [claim.key for claim in first.values()],
            "fingerprints": [claim.fingerprint for claim in first.values()],
            "claimants": [claim.claimant for claim in first.values()],
            "hours": KEPT_HOURS,
            "silent_s": TAKE_OVER_S,
        }
        try:
            async with self._pool.connection() as connection:
                # Durable before anything is done under it: the name of that comes from the claim.
                await connection.execute(_CLAIM, given)
                return await _states(connection, claims)
        except Exception as error:
            raise _translated(error) from error

    async def settle(self, settlements: Sequence[internal.KeySettlement]) -> list[internal.KeyState]:
        """Keep each answer, durably, or give the claim back; an answer that stands already stays.

        Raises Malformed and Unavailable.
        """
        check(settlements)
        given = [
            [one.user_id for one in settlements],
            [one.key for one in settlements],
            [one.claimant for one in settlements],
            [one.answer for one in settlements],
        ]
        try:
            async with self._pool.connection() as connection:
                await connection.execute(_SETTLE, given)
                return await _states(connection, settlements)
        except Exception as error:
            raise _translated(error) from error


async def forget(connection: Connection, most: int) -> int:
    """Remove keys that have ended, at most so many; gives how many they were."""
    return (await connection.execute(_FORGET, [KEPT_HOURS, most])).rowcount


def check(asked: Sequence[Asked]) -> None:
    """Raises Malformed for what no gateway sends."""
    if len(asked) > MOST:
        raise Malformed(f"At most {MOST} keys a call", {"keys": str(len(asked))})
    for one in asked:
        visible = one.key.isascii() and one.key.isprintable() and " " not in one.key
        if not (0 < len(one.key) <= MOST_BYTES and visible and one.user_id > 0 and one.claimant > 0):
            raise Malformed("A key has a user, a claimant, and 1 to 255 visible ASCII characters")
        if isinstance(one, internal.KeyClaim) and len(one.fingerprint) != FINGERPRINT_BYTES:
            raise Malformed(f"A fingerprint has {FINGERPRINT_BYTES} bytes")


async def _states(connection: Connection, asked: Sequence[Asked]) -> list[internal.KeyState]:
    given = [[one.user_id for one in asked], [one.key for one in asked]]
    rows = await (await connection.execute(_STATES, given)).fetchall()
    return states_of(asked, rows)


def states_of(asked: Sequence[Asked], rows: Iterable[TupleRow]) -> list[internal.KeyState]:
    """What each of those who asked is told; a key that was removed meanwhile has an empty state."""
    found = {(row[0], row[1]): row for row in rows}
    states = []
    for one in asked:
        state = internal.KeyState()
        row = found.get((one.user_id, one.key))
        if row is not None:
            _, _, claimant, state.fingerprint, answer, state.created_us = row
            state.claimed = claimant == one.claimant and answer is None
            state.answer = answer or b""
        states.append(state)
    return states


def _translated(error: Exception) -> Exception:
    return Unavailable("Idempotency keys cannot be looked up right now") if is_transient(error) else error
