"""First answers under Idempotency-Keys, in Redis: in front of order-service, which has them all.

    PREFIX:idempotency:USER:KEY    a string, with the rest of the key's 24 hours as its time to live

Does not promise anything: Redis may be away, flushed or slow; then the answer is asked for where it is true.
"""

from gateway.redis_pipe import RedisAway, RedisPipe

MOST_BYTES = 64 * 1024  # A larger answer is not kept here: a large batch is rarely repeated.


class RedisRecords:
    """The `Records` of `idempotency`."""

    def __init__(self, pipe: RedisPipe, prefix: str) -> None:
        self._pipe = pipe
        self._prefix = f"{prefix}:idempotency:"

    async def find(self, user_id: int, key: str) -> bytes | None:
        try:
            found = await self._pipe.command("GET", self._name(user_id, key))
        except RedisAway:
            return None
        return found if isinstance(found, bytes) else None

    async def keep(self, user_id: int, key: str, answer: bytes, left_s: int) -> None:
        if len(answer) > MOST_BYTES:
            return
        try:
            await self._pipe.command("SET", self._name(user_id, key), answer, "EX", left_s)
        except RedisAway:
            return

    def _name(self, user_id: int, key: str) -> str:
        return f"{self._prefix}{user_id}:{key}"
