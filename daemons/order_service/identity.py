"""Who is calling: by bearer token on the public port, by `x-user-id` on the internal one.

The user is never taken from a message. Answers about tokens are kept for at most `token_cache_s`, so
that a revoked one ends within that time.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import anyio
import grpc.aio

from common.admin import token_sha256
from common.core.errors import Unauthenticated, Unavailable
from common.db import Pool, is_transient

CACHED_TOKENS = 10_000
BEARER = "bearer "

Context = grpc.aio.ServicerContext[object, object]
Identify = Callable[[Context], Awaitable[int]]

_OWNER = "SELECT user_id FROM tokens WHERE token_sha256 = %s AND revoked_at IS NULL"


class Tokens:
    """Looks tokens up, and keeps what it found for a moment. Unknown ones are never kept."""

    def __init__(self, pool: Pool, *, cache_s: float) -> None:
        self._pool = pool
        self._cache_s = cache_s
        self._kept: OrderedDict[bytes, tuple[int, float]] = OrderedDict()

    async def owner(self, token: str) -> int:
        """The token's user; raises Unauthenticated, or Unavailable when nobody can tell."""
        digest = token_sha256(token)
        user_id, until_s = self._kept.get(digest, (0, 0.0))
        if user_id and anyio.current_time() < until_s:
            return user_id
        user_id = await self._look_up(digest)
        self._kept[digest] = (user_id, anyio.current_time() + self._cache_s)
        self._kept.move_to_end(digest)
        if len(self._kept) > CACHED_TOKENS:
            self._kept.popitem(last=False)
        return user_id

    async def _look_up(self, digest: bytes) -> int:
        try:
            async with self._pool.connection() as connection:
                row = await (await connection.execute(_OWNER, [digest])).fetchone()
        except Exception as error:
            if not is_transient(error):
                raise
            raise Unavailable("Tokens cannot be looked up right now") from error
        if row is None:
            self._kept.pop(digest, None)
            raise Unauthenticated
        return int(row[0])


def by_token(tokens: Tokens) -> Identify:
    """For the public port: `authorization: Bearer TOKEN` in the call's metadata."""

    async def identify(context: Context) -> int:
        value = _metadata(context, "authorization")
        if not value.lower().startswith(BEARER):
            raise Unauthenticated("The call's metadata needs authorization: Bearer TOKEN")
        return await tokens.owner(value[len(BEARER) :].strip())

    return identify


async def by_daemon(context: Context) -> int:
    """For the internal port: the calling daemon has authenticated the user, and names them."""
    value = _metadata(context, "x-user-id")
    if not value.isascii() or not value.isdigit():
        raise Unauthenticated("An internal call needs the metadata x-user-id")
    return int(value)


def _metadata(context: Context, key: str) -> str:
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return value if isinstance(value, str) else value.decode("utf-8", "replace")
    return ""
