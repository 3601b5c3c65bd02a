"""The machine's own figures, measured on the very servers of the benchmark, while they are idle."""

import sys
import time

import anyio
import psycopg

from bench.accept import CONNECTIONS
from bench.http import connected, until_open
from bench.table import Figure, percentile
from common import kafka, kafka_reader
from common.config import Settings
from common.core import messages as m
from common.topics import topics
from common.wire import encode_batch, encode_commands
from daemons.local.ports import free_port

PREFIX = "bench"  # Of topics of its own: market-data would read what these send, and puzzle over it.
ROUNDS = 300
ORDERS_A_RECORD, IN_FLIGHT = 100, 64


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
        kafka_reader.reader(settings, topic, partition) as reader,
    ):
        for _ in range(ROUNDS):
            begin_s = time.perf_counter()
            await producer.send(topic, partition, b"")
            while not await reader.poll():
                pass
            times.append(time.perf_counter() - begin_s)
    return Figure("limit: a Kafka round trip, p50", percentile(times, 50) * 1e3, "ms")


async def kafka_bulk_limit(settings: Settings, seconds: float) -> Figure:
    """Records as the relay sends them, of 100 orders each, to every partition and back: orders a second."""
    topic, record = topics(settings).order_updates, _record_of(ORDERS_A_RECORD)
    received, stop_s = 0, time.perf_counter() + seconds

    async def produce(producer: kafka.Producer) -> None:
        while time.perf_counter() < stop_s:
            await producer.send_many(
                [kafka.Message(topic, number % settings.partitions, record) for number in range(IN_FLIGHT)]
            )

    async def consume(partition: int) -> None:
        nonlocal received
        async with kafka_reader.reader(settings, topic, partition) as reader:
            while time.perf_counter() < stop_s:
                received += len(await reader.poll())

    begin_s = time.perf_counter()
    async with kafka.producer(settings) as producer, anyio.create_task_group() as group:
        for partition in range(settings.partitions):
            group.start_soon(consume, partition)
        group.start_soon(produce, producer)
    rate = received * ORDERS_A_RECORD / (time.perf_counter() - begin_s)
    what = f"limit: records of {ORDERS_A_RECORD} orders through aiokafka, there and back"
    return Figure(what, rate, "orders/s", "", f"{len(record):,} bytes a record")


def _record_of(count: int) -> bytes:
    places = [
        m.Place(
            number, 1_001, 1, m.Side.BUY, m.OrderType.LIMIT, m.TimeInForce.GTC, False,
            m.SelfTradePrevention.CANCEL_TAKER, 5_000_000 + number, 10, 0, 500_000_000, "",
        )
        for number in range(1 << 40, (1 << 40) + count)
    ]  # fmt: skip
    return encode_batch(
        partition=0,
        first_sequence=1 << 30,
        time_us=1_700_000_000_000_000,
        previous_chain=bytes(32),
        chain=bytes(32),
        commands=encode_commands(places),
    )


async def route_limit(seconds: float) -> Figure:
    """A Quart route on hypercorn and Trio that does nothing, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare_route", str(port)]
    async with await anyio.open_process(command, stdout=None, stderr=None) as process:
        try:
            await until_open(port)
            answers = await _hammer(port, seconds)
        finally:
            process.kill()
    return Figure(f"limit: a bare Quart route on Trio, {CONNECTIONS} connections", answers / seconds, "/s")


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
