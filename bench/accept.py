"""Orders accepted over HTTP: many connections, each with one order under way, buyers against sellers."""

import time

import anyio

from bench.http import Connection, connected, join
from bench.table import Figure, percentile

CONNECTIONS = 50
WARM_UP_S = 2.0


async def accepted(host: str, port: int, seconds: float) -> list[Figure]:
    """Rate and latency of 202; about half of the orders trade."""
    seconds_each: list[float] = []
    refusals: dict[int, int] = {}

    async def trade(index: int, started: anyio.Event, stop_s: float) -> None:
        async with connected(host, port) as connection:
            request = _order(connection, await join(connection), index)
            await started.wait()
            while (begin_s := time.perf_counter()) < stop_s:
                status, _ = await connection.send(request)
                end_s = time.perf_counter()
                if status != 202:
                    refusals[status] = refusals.get(status, 0) + 1
                elif end_s > stop_s - seconds:
                    seconds_each.append(end_s - begin_s)

    started = anyio.Event()
    stop_s = time.perf_counter() + WARM_UP_S + seconds
    async with anyio.create_task_group() as group:
        for index in range(CONNECTIONS):
            group.start_soon(trade, index, started, stop_s)
        started.set()
    if refusals:
        print(f"  answers other than 202: {refusals}")
    return [
        Figure(
            f"orders accepted over HTTP, {CONNECTIONS} connections",
            len(seconds_each) / seconds,
            "/s",
            ">= 1,600/s",
        ),
        Figure("  its p50", percentile(seconds_each, 50) * 1e3, "ms"),
        Figure("  its p99", percentile(seconds_each, 99) * 1e3, "ms", "<= 120 ms"),
    ]


def _order(connection: Connection, token: str, index: int) -> bytes:
    order = {
        "symbol": "BTC-USD",
        "side": "BUY" if index % 2 else "SELL",
        "type": "LIMIT",
        "price": "50000.00",
        "quantity": "0.00010",
    }
    return connection.prepare("POST", "/api/v1/orders", token, order)
