"""What an order costs while the books grow to a million live orders, and how long a cold start takes then.

Between two readings the books are filled with orders that rest. The exchange is fresh: what other loads leave
in the books would count.
"""

import os
import signal
import time

import anyio

from bench.batches import HIGH, Sent, sending
from bench.flow import Backlog, shares
from bench.local import Local
from bench.table import Figure
from common import db

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MEASURED = 30_000  # Orders of one reading.
BEHIND = 20_000  # Ticks over which the orders that only rest are spread.
OPEN_S = 120.0

_LIVE = "SELECT count(*) FROM orders WHERE status <= 3"
_TRADES = "SELECT coalesce(sum(next_trade_id), 0) FROM market_states"


async def growth(local: Local, backlog: Backlog) -> list[Figure]:
    """CPU for each order at each size of the books; then every matching is killed."""
    figures: list[Figure] = []
    async with db.connect(str(local.run["postgres_url"]), "bench growth") as connection:
        for size in SIZES:
            live = await _fill(local, backlog, connection, size)
            figures.append(await _cost(local, backlog, live, figures))
        figures.append(await _cold_start(local, backlog, connection))
    return figures


async def _fill(local: Local, backlog: Backlog, connection: db.Connection, size: int) -> int:
    """Until so many orders are live, or a few thousand more; gives how many."""
    live = await _number(connection, _LIVE)
    async with sending(local, Sent(), backlog, HIGH, touch=0.0, behind=BEHIND):
        first = backlog.given
        while live + backlog.given - first < size:
            await backlog.look()
    await backlog.below(0)
    live = await _number(connection, _LIVE)
    print(f"  {live:,} live orders", flush=True)
    return live


async def _cost(local: Local, backlog: Backlog, live: int, before: list[Figure]) -> Figure:
    """Of the next `MEASURED` orders, of which some rest too."""
    used, first = local.cpu_seconds(), backlog.given
    async with sending(local, Sent(), backlog, HIGH):
        while backlog.given - first < MEASURED:
            await backlog.look()
    await backlog.below(0)
    count = backlog.given - first
    spent = local.cpu_since(used)
    cost_us = spent.each_us(count)
    beside = f"{cost_us / before[0].value:.2f} of the first; " if before else ""
    beside += shares(spent, count)
    return Figure(
        f"CPU an order with {live:,} live ones, all parts", cost_us, "us", "flat within 20 %", beside
    )


async def _cold_start(local: Local, backlog: Backlog, connection: db.Connection) -> Figure:
    """kill -9 of every matching, until a trade is settled that came after."""
    traded = await _number(connection, _TRADES)
    begin_s = time.perf_counter()
    for name, pid in local.daemons().items():
        if name.startswith("matching"):
            os.kill(pid, signal.SIGKILL)
    async with sending(local, Sent(), backlog, HIGH):
        with anyio.fail_after(OPEN_S):
            while await _number(connection, _TRADES) == traded:
                await backlog.look()
    took_s = time.perf_counter() - begin_s
    await backlog.below(0)
    return Figure(
        f"every matching killed with {SIZES[-1]:,} live orders: trading again", took_s, "s", "<= 15 s"
    )


async def _number(connection: db.Connection, query: str) -> int:
    row = await (await connection.execute(query.encode())).fetchone()
    assert row is not None
    return int(row[0])
