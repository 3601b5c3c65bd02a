"""Redis for the gateway: concurrent requests share round trips, and nobody waits long for it.

Natural batching: while a round trip is under way, what is asked forms the next pipeline. There is one
connection, written and read on Trio itself: redis-py's clients need asyncio or a thread, and a thread would
fight with the loop for the interpreter at each of its steps.

Nothing may depend on Redis being there. A round trip that takes longer than CALL_S, or a connection that
breaks, fails whatever waits; until Redis has answered a PING within CALL_S again, every call fails at once.
So a caller loses at most CALL_S, once, and needs another way that does without (`RedisAway` is its sign).

Not promised: that a call which failed was not carried out.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final
from urllib.parse import unquote, urlsplit

import trio

from common.config import BadSetting
from common.core.errors import Unavailable
from common.health import Health
from common.telemetry import get_logger
from gateway import metrics
from gateway.resp import BadReply, ErrorReply, Replies, Reply, Word, encode

CALL_S = 0.05  # A round trip; also the most that a request loses when Redis hangs.
CONNECT_S = 1.0
RETRY_S, MOST_RETRY_S = 0.1, 1.0
PROBE_S = 1.0  # Of silence: then a PING shows whether Redis is still there.
MOST_COMMANDS = 1_000  # In one round trip.
MOST_WAITING = 20_000
RECEIVE_BYTES = 1 << 16

_PING = encode(["PING"])

log = get_logger(__name__)


class RedisAway(Unavailable):
    """Redis does not answer, or would not do it."""


class RedisRefused(RedisAway):
    """Redis answered with an error; `reply.code` is its first word."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(f"Redis: {reply.text}")
        self.reply: Final = reply


class Script:
    """A Lua script; sent by its digest, and whole when Redis has forgotten it."""

    def __init__(self, source: str) -> None:
        self.source: Final = source.encode()
        self.digest: Final = sha1(self.source, usedforsecurity=False).hexdigest().encode()


@dataclass(slots=True, eq=False)
class _Waiting:
    """A command and who waits for it."""

    data: bytes
    ended: trio.Event = field(default_factory=trio.Event)
    reply: "Reply | RedisAway" = None
    abandoned: bool = False


class RedisPipe:
    """Made by `redis_pipe`, and of use within its block."""

    def __init__(self, url: str, health: Health) -> None:
        self._where = _Where.of(url) if url else None
        self._health = health
        self._queue: deque[_Waiting] = deque()
        self._filled = trio.Event()
        self._pause_s = RETRY_S  # Before the next connection.
        self.up = False  # False: every call fails at once.
        self.tried = trio.Event()  # Set when the first connection has succeeded or failed.

    async def command(self, *words: Word) -> Reply:
        """The reply to one command; never an ErrorReply. Raises RedisAway."""
        if not self.up:
            raise RedisAway("Redis does not answer.")
        if len(self._queue) >= MOST_WAITING:
            raise RedisAway("Too many wait for Redis.")
        waiting = _Waiting(encode(words))
        self._queue.append(waiting)
        self._filled.set()
        try:
            await waiting.ended.wait()
        finally:
            waiting.abandoned = True  # When cancelled while it is still in the queue, it is not sent.
        reply = waiting.reply
        if isinstance(reply, RedisAway):
            raise reply
        if isinstance(reply, ErrorReply):
            raise RedisRefused(reply)
        return reply

    async def script(self, script: Script, keys: Sequence[Word], arguments: Sequence[Word] = ()) -> Reply:
        """What a script returns. Raises RedisAway."""
        try:
            return await self.command(b"EVALSHA", script.digest, len(keys), *keys, *arguments)
        except RedisRefused as error:
            if error.reply.code != "NOSCRIPT":
                raise
        return await self.command(b"EVAL", script.source, len(keys), *keys, *arguments)

    async def run(self) -> None:
        """Connect and serve, again and again, until cancelled."""
        if self._where is None:
            self._health.set("redis", True, "not configured: each gateway limits by itself", needed=False)
            metrics.limits_degraded.set(1)
            self.tried.set()
            return
        while True:
            try:
                await self._connect_and_serve(self._where)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, BadReply, RedisAway) as error:
                self._turn(False, _name(error))
            self.tried.set()
            await trio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, MOST_RETRY_S)

    async def _connect_and_serve(self, where: "_Where") -> None:
        with trio.fail_after(CONNECT_S):
            stream = await where.dial()
        async with stream:
            trip = _Trip(stream)
            with trio.fail_after(CONNECT_S):
                for reply in await trip.go(where.greeting):
                    if isinstance(reply, ErrorReply):
                        raise RedisRefused(reply)
            with trio.fail_after(CALL_S):  # One that is too slow for requests is not called up.
                await trip.go([_PING])
            self._turn(True)
            self.tried.set()
            while True:
                with trio.move_on_after(PROBE_S):
                    await self._filled.wait()
                await self._round_trip(trip)

    async def _round_trip(self, trip: "_Trip") -> None:
        """What waits, or else a PING, within CALL_S."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < MOST_COMMANDS:
            waiting = self._queue.popleft()
            if not waiting.abandoned:
                batch.append(waiting)
        if not self._queue:
            self._filled = trio.Event()
        try:
            with trio.fail_after(CALL_S):
                replies = await trip.go([one.data for one in batch] or [_PING])
            for waiting, reply in zip(batch, replies, strict=False):
                waiting.reply = reply
        except BaseException as error:
            self._turn(False, _name(error))  # Before those who wait are woken: they may ask again at once.
            for waiting in batch:
                waiting.reply = RedisAway("Redis did not answer.")
            raise
        finally:
            for waiting in batch:
                waiting.ended.set()

    def _turn(self, up: bool, why: str = "") -> None:
        """Redis came or went; what waits is told when it went."""
        if self.up != up or not self.tried.is_set():
            log.info("Redis answers") if up else log.warning("Redis does not answer", why=why)
            metrics.redis_turns.labels("up" if up else "down").inc()
        self.up = up
        metrics.limits_degraded.set(not up)
        self._health.set("redis", up, "" if up else f"does not answer: {why}", needed=False)
        if up:
            self._pause_s = RETRY_S
        else:
            while self._queue:
                waiting = self._queue.popleft()
                waiting.reply = RedisAway("Redis does not answer.")
                waiting.ended.set()
            self._filled = trio.Event()


def _name(error: BaseException) -> str:
    return f"{type(error).__name__} {error}".strip()


class _Trip:
    """One connection's round trips."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._replies = Replies()

    async def go(self, commands: Sequence[bytes]) -> list[Reply]:
        """Send all, then read as many replies; raises BadReply, or what the stream raises."""
        await self._stream.send_all(b"".join(commands))
        replies: list[Reply] = []
        while True:
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise trio.BrokenResourceError("Redis closed the connection")
            self._replies.feed(data)
            replies += self._replies.take(len(commands) - len(replies))
            if len(replies) == len(commands):
                return replies


@dataclass(frozen=True, slots=True)
class _Where:
    """A Redis URL taken apart."""

    host: str
    port: int
    tls: bool
    greeting: tuple[bytes, ...]  # What a new connection says first.

    @classmethod
    def of(cls, url: str) -> "_Where":
        """Raises BadSetting; the message does not repeat the URL, which may hold a password."""
        try:
            parts = urlsplit(url)
            port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
        except ValueError:
            raise BadSetting("EXCHANGE_REDIS_URL is no redis://[user:password@]host:port/database") from None
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise BadSetting("EXCHANGE_REDIS_URL must start with redis://HOST or rediss://HOST")
        greeting = []
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            greeting.append(encode(["AUTH", *user, unquote(parts.password)]))
        greeting.append(encode(["SELECT", database]))
        return cls(parts.hostname, port, parts.scheme == "rediss", tuple(greeting))

    async def dial(self) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(self.host, self.port)
        if not self.tls:
            return stream
        return trio.SSLStream(stream, ssl.create_default_context(), server_hostname=self.host)


@asynccontextmanager
async def redis_pipe(url: str, health: Health) -> AsyncIterator[RedisPipe]:
    """A pipe while the body runs; it is there whether Redis is or not. Raises BadSetting.

    `health` hears of it as the part "redis", which is not needed.
    """
    pipe = RedisPipe(url, health)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pipe.run)
        await pipe.tried.wait()
        yield pipe
        nursery.cancel_scope.cancel()
