"""Sessions: short-lived tokens that a signed request asks for.

A session never allows more than its key, is bound to the key's networks, and ends with the key. Its token is
shown once; the database has the token's SHA-256.
"""

import secrets
from dataclasses import dataclass, field

from common.admin import token_sha256
from common.core.errors import NotASession, TooManySessions, Unauthenticated
from common.db import Connection
from common.identity import permissions as bits

MOST_SESSIONS = 100  # Live ones of a key.

_KEY = """
SELECT user_id, permissions FROM api_keys
WHERE api_key = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())
FOR NO KEY UPDATE
"""
_LIVE = "SELECT count(*) FROM tokens WHERE api_key = %s AND revoked_at IS NULL"
_OPEN = """
INSERT INTO tokens (token_sha256, user_id, permissions, api_key, expires_at)
SELECT %s, user_id, %s, api_key, least(clock_timestamp() + make_interval(secs => %s), expires_at)
FROM api_keys WHERE api_key = %s
RETURNING (extract(epoch FROM expires_at) * 1000000)::bigint
"""
# Gone, so that who opens and closes leaves nothing to look through.
_CLOSE = "DELETE FROM tokens WHERE token_sha256 = %s AND api_key IS NOT NULL AND revoked_at IS NULL"


@dataclass(frozen=True, slots=True)
class Session:
    """`expires_us`: Unix time in microseconds."""

    token: str = field(repr=False)
    expires_us: int


async def open_session(connection: Connection, api_key: str, permissions: int, session_s: float) -> Session:
    """A token with these permissions for so many seconds, or until the key ends.

    Raises Unauthenticated when the key has ended, PermissionMissing for more than it allows, and
    TooManySessions.
    """
    token = secrets.token_urlsafe(32)
    async with connection.transaction():
        row = await (await connection.execute(_KEY, [api_key])).fetchone()
        if row is None:
            raise Unauthenticated("The API key has ended.")
        bits.check(int(row[1]), permissions)
        await connection.execute(
            "DELETE FROM tokens WHERE api_key = %s AND expires_at <= clock_timestamp()", [api_key]
        )
        count = await (await connection.execute(_LIVE, [api_key])).fetchone()
        assert count is not None
        if int(count[0]) >= MOST_SESSIONS:
            raise TooManySessions(details={"limit": str(MOST_SESSIONS)})
        given = [token_sha256(token), permissions, session_s, api_key]
        made = await (await connection.execute(_OPEN, given)).fetchone()
        assert made is not None
    return Session(token, int(made[0]))


async def close_session(connection: Connection, token: str) -> None:
    """End a session. Raises NotASession for another kind of token, Unauthenticated for one that has ended."""
    digest = token_sha256(token)
    if (await connection.execute(_CLOSE, [digest])).rowcount:
        return
    cursor = await connection.execute("SELECT api_key FROM tokens WHERE token_sha256 = %s", [digest])
    row = await cursor.fetchone()
    if row is not None and row[0] is None:
        raise NotASession
    raise Unauthenticated
