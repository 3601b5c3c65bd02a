"""A leader is killed while users trade: how long until its standby works in its place.

Seen from outside, in PostgreSQL: when trades settle, when candles move, and when a lease gets a new token.
"""

import signal
from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import anyio

from common import db
from tests.harness.exchange import Exchange

LOOK_S = 0.005
WITHIN_S = 20.0
AFTER_S = 0.3  # Looked at after the first work of the new leader: a stop right after it counts as well.

TRADES, CANDLES, MATCHING, SETTLEMENT = "trades", "candles moved", "matching", "settlement"
WRITING = "candles"  # The lease of the candle writer.

_LOOK = f"""
SELECT '{TRADES}', market_id, next_trade_id FROM market_states UNION ALL
SELECT '{CANDLES}', market_id, last_trade_id FROM candle_cursors UNION ALL
SELECT service, partition, fencing_token FROM partition_leader_locks
"""
_LED = """
SELECT m.market_id, m.partition FROM markets m JOIN partition_leader_locks l USING (partition)
WHERE l.service = %s AND l.holder = %s AND m.symbol = ANY(%s)
"""
_LEADER = """
SELECT l.holder FROM partition_leader_locks l JOIN markets m USING (partition)
WHERE l.service = %s AND m.symbol = %s
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of leader: `service` names its leases, `work` what it does where everybody sees it."""

    name: str
    service: str
    work: str


KINDS = (
    Kind("matching", MATCHING, TRADES),
    Kind("settling", SETTLEMENT, TRADES),
    Kind("candles", WRITING, CANDLES),
)


@dataclass(frozen=True, slots=True)
class Takeover:
    """`led_s`: from the kill to the last new token of a market that trades. `stopped_s`: the longest time
    without a settled trade that touches the takeover; for candles from the kill to the first that move.
    """

    kind: Kind
    victim: str
    markets: int
    led_s: float
    stopped_s: float

    def __str__(self) -> str:
        times = f"led after {self.led_s * 1e3:.0f} ms, stopped for {self.stopped_s * 1e3:.0f} ms"
        return f"{self.kind.name}: {self.victim}, markets: {self.markets}, {times}"


class Pulse:
    """`moments`: when each number of PostgreSQL grew, by what it is and whose; on the loop's clock."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._values: dict[tuple[str, int], int] = {}
        self.moments: dict[tuple[str, int], list[float]] = defaultdict(list)

    async def run(self) -> None:
        """Look until cancelled."""
        async with db.connect(self._url, "pulse") as connection:
            while True:
                cursor = await connection.execute(_LOOK.encode())
                now_s = anyio.current_time()
                for what, number, value in await cursor.fetchall():
                    before = self._values.get((what, number))
                    self._values[what, number] = value
                    if before is not None and before != value:
                        self.moments[what, number].append(now_s)
                await anyio.sleep(LOOK_S)

    async def first_after(self, what: str, number: int, begin_s: float) -> float:
        """The first moment after this one, waited for. Raises TimeoutError."""
        moments = self.moments[what, number]
        with anyio.fail_after(WITHIN_S):
            while not moments or moments[-1] <= begin_s:
                await anyio.sleep(LOOK_S)
        return moments[bisect_right(moments, begin_s)]

    def longest_s(self, what: str, number: int, begin_s: float, end_s: float) -> float:
        """The longest time between two moments that touches the span."""
        moments = self.moments[what, number]
        touching = moments[max(0, bisect_right(moments, begin_s) - 1) : bisect_left(moments, end_s) + 1]
        return max((later - earlier for earlier, later in pairwise(touching)), default=0.0)


async def leader_of(connection: db.Connection, service: str, symbol: str) -> str:
    row = await (await connection.execute(_LEADER, [service, symbol])).fetchone()
    assert row is not None
    return str(row[0])


async def kill_leader(
    exchange: Exchange, connection: db.Connection, pulse: Pulse, kind: Kind, symbols: list[str]
) -> Takeover:
    """kill -9 of who leads the first of these markets, all of which trade; returns when others lead what
    it had led and have worked there. It stays dead. Raises TimeoutError.
    """
    victim = await leader_of(connection, kind.service, symbols[0])
    led = await (await connection.execute(_LED, [kind.service, victim, symbols])).fetchall()
    killed_s = anyio.current_time()
    exchange.daemons[victim].signal(signal.SIGKILL)
    led_s = works_s = 0.0
    for market, partition in led:
        token_s = await pulse.first_after(kind.service, partition, killed_s)
        led_s = max(led_s, token_s - killed_s)
        works_s = max(works_s, await pulse.first_after(kind.work, market, token_s))
    await anyio.to_thread.run_sync(exchange.daemons[victim].wait)
    stopped_s = works_s - killed_s
    if kind.work == TRADES:
        await anyio.sleep(AFTER_S)
        stopped_s = max(pulse.longest_s(TRADES, market, killed_s, works_s + AFTER_S) for market, _ in led)
    return Takeover(kind, victim, len(led), led_s, stopped_s)
