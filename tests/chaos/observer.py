"""When trades settle, market by market, seen from outside: straight from PostgreSQL, past every proxy.

Does not promise more than its pace: a trade is seen up to `LOOK_S` after it settled. While PostgreSQL does
not answer nothing settles either, so that what is not seen is a stop.
"""

import time
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from itertools import pairwise

import anyio
import psycopg

from common.db import connect

LOOK_S = 0.02
_AGAIN_S = 0.05
_LOOK_LIMIT_S = 2.0
_LOOK = "SELECT market_id, next_trade_id - 1 FROM market_states"


class Observer:
    """`trades`: the last ids by market; `moments`: when they grew, in seconds since `began_s`."""

    def __init__(self, url: str, began_s: float) -> None:
        self._url = url
        self._began_s = began_s
        self.trades: dict[int, int] = {}
        self.moments: dict[int, list[float]] = defaultdict(list)
        self.trades_by_s: Counter[int] = Counter()
        self._grown = anyio.Event()

    def now_s(self) -> float:
        return time.monotonic() - self._began_s

    async def run(self) -> None:
        """Look until canceled, whatever PostgreSQL does meanwhile."""
        while True:
            try:
                await self._look()
            except (psycopg.Error, OSError, TimeoutError):
                await anyio.sleep(_AGAIN_S)

    async def grows(self) -> None:
        """Until a trade of any market is seen."""
        await self._grown.wait()

    def longest_stops(self, begin_s: float, end_s: float) -> dict[int, float]:
        """By market: the longest time without a trade that touches the span, seconds."""
        stops = {}
        for market, moments in self.moments.items():
            first = max(0, bisect_right(moments, begin_s) - 1)
            touching = moments[first : bisect_left(moments, end_s) + 1]
            stops[market] = max((later - earlier for earlier, later in pairwise(touching)), default=0.0)
        return stops

    async def _look(self) -> None:
        async with connect(self._url, "chaos observer") as connection:
            while True:
                with anyio.fail_after(_LOOK_LIMIT_S):
                    rows = await (await connection.execute(_LOOK)).fetchall()
                self._take([(int(row[0]), int(row[1])) for row in rows])
                await anyio.sleep(LOOK_S)

    def _take(self, rows: list[tuple[int, int]]) -> None:
        now_s = self.now_s()
        for market, last in rows:
            before = self.trades.get(market, 0)
            if last > before:
                self.moments[market].append(now_s)
                self.trades_by_s[int(now_s)] += last - before
                self.trades[market] = last
                grown, self._grown = self._grown, anyio.Event()
                grown.set()
