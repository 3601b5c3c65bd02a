"""The machine's own figures, measured on the very servers of the benchmark, while they are idle."""

import sys
import time

import anyio
import psycopg

from bench.accept import CONNECTIONS
from bench.http import connected
from bench.table import Figure, percentile
from common import kafka
from common.config import Settings
from common.topics import topics
from daemons.local.ports import free_port

ROUNDS = 300
OPEN_S = 20.0


async def commit_limit(postgres_url: str) -> Figure:
    """One row, one durable commit, one after the other."""
    times = []
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE bench_commit (n bigint)")
        for number in range(ROUNDS):
            begin_s = time.perf_counter()
            await connection.execute("INSERT INTO bench_commit VALUES (%s)", [number])
            times.append(time.perf_counter() - begin_s)
        await connection.execute("DROP TABLE bench_commit")
    return Figure("limit: a durable PostgreSQL commit, p50", percentile(times, 50) * 1e3, "ms")


async def kafka_limit(settings: Settings) -> Figure:
    """A record there and back through aiokafka, acks=all, one after the other."""
    topic, partition = topics(settings).order_updates, settings.partitions - 1
    times = []
    async with (
        kafka.producer(settings) as producer,
        kafka.reader(settings, topic, partition) as reader,
    ):
        for _ in range(ROUNDS):
            begin_s = time.perf_counter()
            await producer.send(topic, partition, b"")
            while not await reader.poll():
                pass
            times.append(time.perf_counter() - begin_s)
    return Figure("limit: a Kafka round trip, p50", percentile(times, 50) * 1e3, "ms")


async def route_limit(seconds: float) -> Figure:
    """A Quart route on hypercorn and Trio that does nothing, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare_route", str(port)]
    async with await anyio.open_process(command, stdout=None, stderr=None) as process:
        try:
            with anyio.fail_after(OPEN_S):
                await _until_open(port)
            answers = await _hammer(port, seconds)
        finally:
            process.kill()
    return Figure(f"limit: a bare Quart route on Trio, {CONNECTIONS} connections", answers / seconds, "/s")


async def _until_open(port: int) -> None:
    while True:
        try:
            async with await anyio.connect_tcp("127.0.0.1", port):
                return
        except OSError:
            await anyio.sleep(0.05)


async def _hammer(port: int, seconds: float) -> int:
    answers = 0
    stop_s = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal answers
        async with connected("127.0.0.1", port) as connection:
            request = connection.prepare("POST", "/", body={"a": 1})
            while time.perf_counter() < stop_s:
                await connection.send(request)
                answers += 1

    async with anyio.create_task_group() as group:
        for _ in range(CONNECTIONS):
            group.start_soon(ask)
    return answers
