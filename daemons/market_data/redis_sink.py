"""Top of book, depth and ticker of each market in Redis, for whoever wants to look without asking us.

    {prefix}:book:SYMBOL     token, sequence, bid, ask, bids, asks, time      bids and asks: JSON, top 50
    {prefix}:ticker:SYMBOL   token, sequence, and the fields of API.md's ticker

Written by a script that compares token and sequence where the write happens (I6): an instance that lags,
or that follows a leader which has been overtaken, changes nothing. At most ten writes a second for each
market. Nothing depends on Redis: while it is away this says so, and that is all.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from common.core.units import time_to_text
from common.health import Health
from common.telemetry import get_logger
from daemons.market_data import metrics, protocol
from daemons.market_data.channels import MarketChannels
from daemons.market_data.render import DepthBody

LEVELS = 50
FLUSH_S = 0.1
REFRESH_S = 60.0
EXPIRE_S = 3_600  # Nobody should take a book for live that has not been written for so long.
RETRY_S = 2.0
CALL_S = 2.0

log = get_logger(__name__)

# KEYS[1] the hash; ARGV: token, sequence, seconds to live, then field and value pairs. Numbers below
# 2^53 are exact in Lua. The same sequence may be written again: a ticker changes between two of them.
SCRIPT = """
local token = tonumber(redis.call('HGET', KEYS[1], 'token') or '-1')
local sequence = tonumber(redis.call('HGET', KEYS[1], 'sequence') or '-1')
local newer_token, newer_sequence = tonumber(ARGV[1]), tonumber(ARGV[2])
if newer_token < token or (newer_token == token and newer_sequence < sequence) then
    return 0
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'sequence', ARGV[2], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


class RedisSink:
    """Gathers touched markets and writes each at most every FLUSH_S."""

    def __init__(self, url: str, prefix: str, health: Health) -> None:
        self._url = url
        self._prefix = prefix
        self._health = health
        self._touched: dict[int, MarketChannels] = {}
        self._waiting = anyio.Event()

    def touch(self, channels: MarketChannels) -> None:
        """Something of this market changed."""
        self._touched[channels.feed.market.market_id] = channels
        self._waiting.set()

    async def run(self, everything: Iterable[MarketChannels]) -> None:
        """Write until cancelled. `everything` is gone through again and again: all markets."""
        if not self._url:
            self._health.set("redis", True, "not configured")
            return
        async with _connected(self._url) as redis:
            refreshed_s = anyio.current_time()
            while True:
                with anyio.move_on_after(REFRESH_S):
                    await self._waiting.wait()
                self._waiting = anyio.Event()
                if anyio.current_time() - refreshed_s > REFRESH_S:
                    refreshed_s = anyio.current_time()
                    for channels in everything:
                        self._touched[channels.feed.market.market_id] = channels
                touched, self._touched = self._touched, {}
                await self._write(redis, touched)

    async def _write(self, redis: Redis, touched: Mapping[int, MarketChannels]) -> None:
        try:
            with anyio.fail_after(CALL_S):
                async with redis.pipeline(transaction=False) as pipeline:
                    for channels in touched.values():
                        for key, arguments in hashes(self._prefix, channels):
                            pipeline.eval(SCRIPT, 1, key, *arguments)
                    for result in await pipeline.execute():
                        metrics.redis_writes.labels("written" if result else "refused").inc()
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # RuntimeError is uvloop's word for a connection that was reset a moment ago. redis-py does not
            # know it, and would keep that connection.
            with anyio.move_on_after(CALL_S):
                await redis.connection_pool.disconnect()
            metrics.redis_writes.labels("failed").inc()
            # Ready all the same: nothing here depends on it.
            self._health.set("redis", False, f"unreachable: {type(error).__name__}", needed=False)
            for market_id, channels in touched.items():
                self._touched.setdefault(market_id, channels)
            self._waiting.set()
            await anyio.sleep(RETRY_S)
            return
        self._health.set("redis", True, needed=False)
        await anyio.sleep(FLUSH_S)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Redis]:
    redis = Redis.from_url(
        url, socket_timeout=CALL_S, socket_connect_timeout=CALL_S, retry=Retry(NoBackoff(), 0)
    )
    try:
        yield redis
    finally:
        with anyio.move_on_after(CALL_S, shield=True):  # Else a cancelled close leaves the sockets open.
            await redis.aclose()


def hashes(prefix: str, channels: MarketChannels) -> list[tuple[str, list[str]]]:
    """The hashes of one market as they should be: key, and the script's arguments."""
    feed = channels.feed
    depth = feed.depth
    found: list[tuple[str, list[str]]] = []
    head = [str(feed.token), str(depth.sequence), str(EXPIRE_S)]
    if depth.synced:
        bids, asks = depth.top(LEVELS)
        book = DepthBody(feed.market, bids, asks).to_json()
        fields = {
            "bid": book.bids[0][0] if bids else "",
            "ask": book.asks[0][0] if asks else "",
            "bids": protocol.to_json(book.bids).decode(),
            "asks": protocol.to_json(book.asks).decode(),
            "time": time_to_text(depth.time_us),
        }
        found.append((f"{prefix}:book:{feed.market.symbol}", head + _flat(fields)))
    if feed.seeded and depth.synced:
        ticker = {
            name: "" if value is None else str(value)
            for name, value in msgspec.structs.asdict(channels.ticker.body().to_json()).items()
        }
        found.append((f"{prefix}:ticker:{feed.market.symbol}", head + _flat(ticker)))
    return found


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]
