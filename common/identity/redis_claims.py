"""The memory of signatures that instances share: Redis, for daemons on asyncio.

Nothing depends on Redis being there: one that does not answer within CALL_S costs that time once, and is left
alone for REST_S; each process then has its own memory.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.identity.window import LocalReplays, Replays, SharedReplays, Window, claim_key
from common.telemetry import get_logger

CALL_S = 0.1
REST_S = 1.0

log = get_logger(__name__)


class _Claims:
    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._rests_until_s = 0.0

    async def claim(self, signature: bytes, for_ms: int) -> bool | None:
        if anyio.current_time() < self._rests_until_s:
            return None
        try:
            with anyio.fail_after(CALL_S):
                answer = await self._redis.set(claim_key(self._prefix, signature), 1, nx=True, px=for_ms)
        # RuntimeError is uvloop's word for a connection that was reset a moment ago.
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            self._rests_until_s = anyio.current_time() + REST_S
            log.warning("signatures are not shared", error=type(error).__name__)
            with anyio.move_on_after(CALL_S):
                await self._redis.connection_pool.disconnect()
            return None
        return answer is not None


@asynccontextmanager
async def shared_replays(url: str, prefix: str, window: Window) -> AsyncIterator[Replays]:
    """The memory while the body runs; without a `url` this process's own."""
    if not url:
        yield LocalReplays(window)
        return
    redis = Redis.from_url(
        url, socket_timeout=CALL_S, socket_connect_timeout=CALL_S, retry=Retry(NoBackoff(), 0)
    )
    try:
        yield SharedReplays(window, _Claims(redis, prefix).claim)
    finally:
        with anyio.move_on_after(1.0, shield=True):  # Else a cancelled close leaves the sockets open.
            await redis.aclose()
