"""`python -m bench.gateway`: the gateway alone, in front of a backend that answers without work.

No database and no Kafka: what a request costs in the gateway's process, in microseconds of CPU as /proc
counts them, beside what the parts that it is made of cost alone. The load and the backend have
processes of their own, and share the machine.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import psutil

from bench.accept import CONNECTIONS
from bench.http import Connection, connected, until_open
from bench.table import Figure, as_markdown, percentile
from common.config import Settings
from daemons.local.ports import free_port
from tests.harness.exchange import HIGH_LIMITS
from tests.integration.gateway.conftest import GatewayProcess, gateway_before

SENDERS = 10  # Of batches.
WARM_UP_S = 1.0
TX1_S = 0.005  # About what order-service takes for the orders of 50 connections.
SLOW_S = 0.05  # A Place of the overload: 20,000 orders/s at most.
AGAIN_S = 0.1  # After a 503; clients that respect Retry-After would be kinder.
TOKEN = "alice"  # Known to the backend.
ORDERS = "/api/v1/orders"
GOAL_SINGLE_US, GOAL_BATCH_US = 350, 25

Prepare = Callable[[Connection, int], bytes]


async def gateway_alone(seconds: float) -> list[Figure]:
    """Singles on many connections, batches from ten senders; then the limits. `seconds` for each load."""
    figures: list[Figure] = []
    with _backend(TX1_S) as backend, _gateway(backend) as gateway:
        figures += await _load(gateway, seconds, CONNECTIONS, _single, 1)
    with _backend(0.0) as backend, _gateway(backend) as gateway:
        for orders in (100, 1_000):
            figures += await _load(gateway, seconds, SENDERS, _batch(orders), orders)
        figures += await _grpc_calls(backend, seconds)
    with _backend(SLOW_S) as backend, _gateway(backend) as gateway:
        figures += await _overload(gateway.process.pid, gateway.port, seconds)
    for kind, words in (("asgi", "ASGI function"), ("quart", "Quart route")):
        with _bare_route(kind) as (pid, port):
            await until_open(port)
            figures.append(await _bare(pid, port, seconds, words))
    return figures


async def _load(
    gateway: GatewayProcess, seconds: float, senders: int, prepare: Prepare, orders: int
) -> list[Figure]:
    """What each order costs the process, how many were accepted, and how many shared a call."""
    times, _, cpu_s = await _hammer(gateway.process.pid, gateway.port, seconds, senders, prepare)
    called = "exchange_gateway_batch_orders"
    shared = gateway.metric(f"{called}_sum") / gateway.metric(f"{called}_count")
    what = (
        f"batches of {orders:,} from {senders} senders" if orders > 1 else f"singles, {senders} connections"
    )
    goal_us = GOAL_BATCH_US if orders > 1 else GOAL_SINGLE_US
    return [
        Figure(
            f"gateway alone, {what}: CPU an order",
            cpu_s / (len(times) * orders) * 1e6,
            "us",
            f"<= {goal_us} us",
        ),
        Figure("  orders accepted", len(times) * orders / seconds, "/s"),
        Figure("  orders in a call, on average since the start", shared, ""),
        Figure("  p50", percentile(times, 50) * 1e3, "ms"),
        Figure("  p99", percentile(times, 99) * 1e3, "ms"),
    ]


async def _bare(pid: int, port: int, seconds: float, words: str) -> Figure:
    def prepare(connection: Connection, _: int) -> bytes:
        return connection.prepare("POST", "/", TOKEN, _order(0))

    times, _, cpu_s = await _hammer(pid, port, seconds, CONNECTIONS, prepare)
    return Figure(
        f"limit: a bare {words} on hypercorn and Trio, CPU a request",
        cpu_s / len(times) * 1e6,
        "us",
        "",
        f"{len(times) / seconds:,.0f} /s",
    )


async def _grpc_calls(backend: str, seconds: float) -> list[Figure]:
    """Place calls of one order through the gateway's own bridge, in a process of its own."""
    figures = []
    for tasks in (1, 50):
        command = [sys.executable, "-m", "bench.bare_call", backend, str(tasks), str(seconds)]
        done = await anyio.run_process(command, stderr=None)
        calls, cpu_s = done.stdout.split()
        figures.append(
            Figure(
                f"limit: a bare gRPC call from Trio, {tasks} at once, CPU a call",
                float(cpu_s) / int(calls) * 1e6,
                "us",
                "",
                f"{int(calls) / seconds:,.0f} /s",
            )
        )
    return figures


async def _overload(pid: int, port: int, seconds: float) -> list[Figure]:
    """Twice as many orders at once as the queue may hold, in batches of 100, before a slow backend."""
    senders = 2 * Settings().queue_orders // 100
    process = psutil.Process(pid)
    await _hammer(pid, port, WARM_UP_S, senders, _batch(100))
    before_bytes = process.memory_info().rss
    times, busy_times, _ = await _hammer(pid, port, seconds, senders, _batch(100))
    grown_bytes = process.memory_info().rss - before_bytes
    return [
        Figure(
            "gateway alone, twice what its queue holds: 503 after, p50",
            percentile(busy_times, 50) * 1e3,
            "ms",
        ),
        Figure("  p99", percentile(busy_times, 99) * 1e3, "ms", "<= 50 ms"),
        Figure("  part of the answers", len(busy_times) / (len(times) + len(busy_times)) * 100, "%"),
        Figure("  accepted orders", len(times) * 100 / seconds, "/s"),
        Figure("  their batches' p99", percentile(times, 99) * 1e3, "ms"),
        Figure("  memory grown by", grown_bytes / (1 << 20), "MiB"),
    ]


async def _hammer(
    pid: int, port: int, seconds: float, senders: int, prepare: Prepare
) -> tuple[list[float], list[float], float]:
    """How long each 202 and each 503 took, and the CPU seconds that the process used meanwhile."""
    taken: dict[int, list[float]] = defaultdict(list)
    process = psutil.Process(pid)

    async def ask(index: int) -> None:
        async with connected("127.0.0.1", port) as connection:
            request = prepare(connection, index)
            while True:
                begin_s = time.perf_counter()
                status, _ = await connection.send(request)
                taken[status].append(time.perf_counter() - begin_s)
                if status == 503:
                    await anyio.sleep(AGAIN_S)

    async with anyio.create_task_group() as group:
        for index in range(senders):
            group.start_soon(ask, index)
        await anyio.sleep(WARM_UP_S)
        before_s = _cpu_s(process)
        taken.clear()
        await anyio.sleep(seconds)
        used_s = _cpu_s(process) - before_s
        group.cancel_scope.cancel()
    if taken.keys() - {202, 503}:
        print(f"  other answers: { {status: len(times) for status, times in taken.items()} }")
    return taken[202], taken[503], used_s


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _order(index: int) -> dict[str, str]:
    return {
        "symbol": "BTC-USD",
        "side": "BUY" if index % 2 else "SELL",
        "type": "LIMIT",
        "price": f"{50_000 + index % 100}.{index % 100:02d}",
        "quantity": f"0.00{100 + index % 900}",
    }


def _single(connection: Connection, index: int) -> bytes:
    return connection.prepare("POST", ORDERS, TOKEN, _order(index))


def _batch(orders: int) -> Prepare:
    def prepare(connection: Connection, index: int) -> bytes:
        body = [_order(index * orders + number) for number in range(orders)]
        return connection.prepare("POST", ORDERS + "/batch", TOKEN, body)

    return prepare


@contextmanager
def _backend(place_s: float) -> Iterator[str]:
    """The tests' stand-in for the services, in a process of its own; its address."""
    command = [sys.executable, "-m", "tests.integration.gateway.backend", str(place_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@contextmanager
def _gateway(backend: str) -> Iterator[GatewayProcess]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "gateway.log"
        with gateway_before(backend, backend, log, **HIGH_LIMITS) as running:
            yield running


@contextmanager
def _bare_route(kind: str) -> Iterator[tuple[int, int]]:
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", "bench.bare_route", str(port), kind]) as process:
        try:
            yield process.pid, port
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each load (default 5)")
    given = parser.parse_args()
    figures = anyio.run(gateway_alone, given.seconds, backend_options={"use_uvloop": True})
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
