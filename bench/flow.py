"""The flow of orders that the loads send, and what of it is still on its way.

Of each batch, 40 % stand at the touch, where half of the senders sell and the other half buy, so that they
trade; 60 % rest within 1,000 ticks behind it. Two markets, half of the orders each, and no order is refused.
Bodies are made beforehand, so that sending them costs next to nothing.
"""

import random
from collections.abc import Sequence
from typing import Any

import anyio

from bench.http import Connection
from bench.local import Spent
from common import db

MARKETS = {"BTC-USD": (5_000_000, "0.0001"), "ETH-USD": (300_000, "0.001")}
TOUCH = 0.4
TICKS_BEHIND = 1_000
VARIANTS = 32  # Bodies of one sender, sent in turn.
LOOK_S = 0.1

_LAG = """
SELECT coalesce(sum(s.last_sequence - w.sequence), 0)::bigint,
       coalesce(sum(s.last_sequence), 0)::bigint, (SELECT count(*) FROM outbox)
FROM shards s JOIN watermarks w USING (partition)
"""


def price_ticks(
    draw: random.Random, symbol: str, *, buys: bool, touch: float = TOUCH, ticks_behind: int = TICKS_BEHIND
) -> int:
    """At the touch with a probability of `touch`, else up to so many ticks behind it."""
    behind = 0 if draw.random() < touch else draw.randint(1, ticks_behind)
    return MARKETS[symbol][0] - behind if buys else MARKETS[symbol][0] + behind


def orders(
    draw: random.Random, count: int, *, buys: bool, touch: float = TOUCH, ticks_behind: int = TICKS_BEHIND
) -> list[dict[str, Any]]:
    """Orders as API.md has them, of one user who always buys or always sells."""
    made = []
    for number in range(count):
        symbol = list(MARKETS)[number % len(MARKETS)]
        ticks = price_ticks(draw, symbol, buys=buys, touch=touch, ticks_behind=ticks_behind)
        made.append(
            {
                "symbol": symbol,
                "side": "BUY" if buys else "SELL",
                "type": "LIMIT",
                "price": f"{ticks // 100}.{ticks % 100:02}",
                "quantity": MARKETS[symbol][1],
            }
        )
    return made


def batch_bodies(
    connection: Connection,
    token: str,
    seed: int,
    count: int,
    *,
    buys: bool,
    touch: float = TOUCH,
    ticks_behind: int = TICKS_BEHIND,
) -> list[bytes]:
    """Whole requests of one sender, each with `count` orders."""
    draw = random.Random(seed)
    bodies = []
    for _ in range(VARIANTS):
        made = orders(draw, count, buys=buys, touch=touch, ticks_behind=ticks_behind)
        bodies.append(connection.prepare("POST", "/api/v1/orders/batch", token, made))
    return bodies


class Backlog:
    """`lag` commands are durable and not settled; `given` have been numbered; both over all partitions."""

    def __init__(self, postgres_url: str) -> None:
        self._url = postgres_url
        self.lag = self.given = self.outbox_rows = 0
        self._seen = anyio.Event()

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        async with db.connect(self._url, "bench") as connection:
            while True:
                row = await (await connection.execute(_LAG)).fetchone()
                assert row is not None
                self.lag, self.given, self.outbox_rows = row
                self._seen.set()
                self._seen = anyio.Event()
                await anyio.sleep(LOOK_S)

    async def look(self) -> None:
        """Until it has been looked at after now."""
        await self._seen.wait()
        await self._seen.wait()

    async def below(self, most: int) -> None:
        """Until so few are left, the outbox included when it is to be empty."""
        await self.look()
        while self.lag > most or (most == 0 and self.outbox_rows):
            await self._seen.wait()


def shares(spent: Spent, count: int) -> str:
    """CPU in us for each of `count` orders, by part (what is below one is left out), and how full the machine
    was: where that is near 100 %, it is the sum of these that holds the figure."""
    each = {name: seconds * 1e6 / max(1, count) for name, seconds in spent.parts.items()}
    told = [f"{name} {us:.0f}" for name, us in sorted(each.items(), key=_by_cost) if us >= 1]
    busy = 100 * spent.busy_s / max(spent.whole_s, 1e-9)
    return f"CPU us an order: {', '.join(told)}; in all {spent.each_us(count):.0f}; cores {busy:.0f} % busy"


def _by_cost(pair: tuple[str, float]) -> float:
    return -pair[1]


def tokens_by_side(tokens: Sequence[str]) -> list[tuple[str, bool]]:
    """(token, buys): every other one buys."""
    return [(token, bool(index % 2)) for index, token in enumerate(tokens)]
