"""From the HTTP request to the own `orders` update on the WebSocket, at a steady rate of orders.

The requests leave on time, whether the answers before them have come or not: a slow exchange cannot
slow the clock that it is measured by.
"""

import itertools
import json
import time
from datetime import datetime
from typing import Any

import anyio
from anyio.abc import TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from websockets.asyncio.client import ClientConnection, connect

from bench.http import connected, join
from bench.table import Figure, percentile

CONNECTIONS = 16
WARM_UP_S = 3.0
SETTLE_S = 3.0
GOALS = {50: ("<= 20 ms", "<= 60 ms"), 100: ("<= 10 ms", "<= 40 ms")}  # By orders a second: p50 and p99.

Job = tuple[str, dict[str, str]]  # The token of its user, and the order.


async def end_to_end(
    host: str, port: int, orders_per_s: int, seconds: float, goals: tuple[str, str]
) -> list[Figure]:
    sent_s: dict[str, float] = {}
    answered_s: dict[str, float] = {}
    came_s: dict[str, float] = {}
    placed_s: dict[str, float] = {}  # By PostgreSQL's clock, from TX1 to the arrival of the update.
    async with connected(host, port) as connection:
        tokens = [await join(connection), await join(connection)]
    jobs_in, jobs = anyio.create_memory_object_stream[Job](1_000)
    async with anyio.create_task_group() as group, jobs_in:
        for token in tokens:
            await group.start(_listen, f"ws://{host}:{port}/ws", token, came_s, placed_s)
        for index in range(CONNECTIONS):
            group.start_soon(_send, host, port, jobs.clone() if index else jobs, sent_s, answered_s)
        await _emit(jobs_in, tokens, orders_per_s, WARM_UP_S + seconds)
        await anyio.sleep(SETTLE_S)
        group.cancel_scope.cancel()
    first_s = min(sent_s.values()) + WARM_UP_S
    measured = [name for name, at_s in sent_s.items() if at_s >= first_s]
    times = [came_s[name] - sent_s[name] for name in measured if name in came_s]
    answers = [answered_s[name] - sent_s[name] for name in measured if name in answered_s]
    since_tx1 = [placed_s[name] for name in measured if name in placed_s]
    missing = len(measured) - len(times)
    what = f"end to end at {orders_per_s} orders/s, HTTP request to own WebSocket update"
    return [
        Figure(f"{what}: p50", percentile(times, 50) * 1e3, "ms", goals[0]),
        Figure("  p99", percentile(times, 99) * 1e3, "ms", goals[1]),
        Figure("  of that, until the answer over HTTP: p50", percentile(answers, 50) * 1e3, "ms"),
        Figure("  p99", percentile(answers, 99) * 1e3, "ms"),
        Figure("  from the time that TX1 gives to the update: p50", percentile(since_tx1, 50) * 1e3, "ms"),
        Figure("  p99", percentile(since_tx1, 99) * 1e3, "ms"),
        Figure("  orders measured", len(times), "", f"{missing} without an update" if missing else ""),
    ]


async def _emit(
    jobs: MemoryObjectSendStream[Job], tokens: list[str], orders_per_s: int, seconds: float
) -> None:
    """Pairs of a buy and a sell at a price that wanders, each due at its own moment."""
    begin_s = time.perf_counter()
    for number in itertools.count():
        due_s = begin_s + number / orders_per_s
        if due_s > begin_s + seconds:
            return
        await anyio.sleep(max(0.0, due_s - time.perf_counter()))
        order = {
            "symbol": "ETH-USD",
            "side": "BUY" if number % 2 else "SELL",
            "type": "LIMIT",
            "price": f"{3000 + number // 2 % 50}.00",
            "quantity": "0.0100",
            "client_order_id": f"e2e-{time.time_ns()}-{number}",
        }
        jobs.send_nowait((tokens[number % 2], order))


async def _send(
    host: str,
    port: int,
    jobs: MemoryObjectReceiveStream[Job],
    sent_s: dict[str, float],
    answered_s: dict[str, float],
) -> None:
    async with jobs, connected(host, port) as connection:
        async for token, order in jobs:
            request = connection.prepare("POST", "/api/v1/orders", token, order)
            sent_s[order["client_order_id"]] = time.perf_counter()
            status, body = await connection.send(request)
            answered_s[order["client_order_id"]] = time.perf_counter()
            if status != 202:
                print(f"  {status}: {body.decode()}")


async def _listen(
    url: str,
    token: str,
    came_s: dict[str, float],
    placed_s: dict[str, float],
    *,
    task_status: TaskStatus[None],
) -> None:
    async with connect(url) as socket:
        await socket.send(json.dumps({"op": "auth", "token": token}))
        await socket.send(json.dumps({"op": "subscribe", "channels": ["orders"], "id": 1}))
        await _until_snapshot(socket)
        task_status.started()
        async for text in socket:
            now_s, wall_s = time.perf_counter(), time.time()
            for order in _orders(json.loads(text)):
                name = str(order["client_order_id"])
                if name not in came_s:
                    came_s[name] = now_s
                    placed_s[name] = wall_s - datetime.fromisoformat(order["time"]).timestamp()


async def _until_snapshot(socket: ClientConnection) -> None:
    async for text in socket:
        if json.loads(text).get("channel") == "orders":
            return


def _orders(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The orders that a message tells of: one in an update, a list in a snapshot."""
    if message.get("channel") != "orders":
        return []
    data = message["data"]
    return data if isinstance(data, list) else [data]
