"""TX1 alone: `python -m bench.tx1`, on a PostgreSQL of its own; what it costs, and what PostgreSQL's part is.

The limit is the same rows without a decision: a binary COPY of prepared orders, one UPDATE of the accounts,
an outbox row for each partition and a durable commit, on copies of the tables, by plain psycopg.

Client and server share the machine. Two senders take turns, so that there is always a next batch.
"""

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil
import psycopg

from bench.table import Figure, as_markdown
from common import admin, db
from common.core import messages as m
from common.migrate import migrate
from common.wire import encode_commands
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.prepare import default_markets
from daemons.order_service import order_rows
from daemons.order_service.committer import Committer
from daemons.order_service.markets import Markets
from daemons.order_service.relay import Relays
from daemons.order_service.requests import Accepted, CancelAllOrders, NewOrder, Request

PARTITIONS = 4
USERS = 50
UNITS = 100_000  # Of each asset, for each user; the orders of one run hold a small part of it.
SENDERS = 2
ORDERS = {1: 200, 100: 10_000, 500: 20_000, 1_000: 20_000}  # By the size of the batches.
QUEUE = 10_000
SESSION = "order-service tx1"
LIMIT_SESSION = "bench limit"

_SYMBOLS = ("BTC-USD", "ETH-USD")
_TABLES = """
CREATE SCHEMA bench_limit;
CREATE TABLE bench_limit.orders (LIKE orders INCLUDING ALL);
CREATE TABLE bench_limit.accounts (LIKE accounts INCLUDING ALL);
CREATE TABLE bench_limit.outbox (LIKE outbox INCLUDING ALL);
INSERT INTO bench_limit.accounts
SELECT u, a, 1000000000, 0 FROM generate_series(1, 50) u, generate_series(1, 2) a;
"""
_UPDATE = "UPDATE bench_limit.accounts SET available_atoms = available_atoms - 1, held_atoms = held_atoms + 1"
_OUTBOX = "INSERT INTO bench_limit.outbox VALUES (%s, %s, %s, %s, %s, %s, %s)"
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"


@dataclass(slots=True)
class Spent:
    """What a run took: orders, wall-clock seconds, CPU seconds of this process and of its backends."""

    orders: int
    wall_s: float
    python_s: float
    postgres_s: float

    @property
    def rate(self) -> float:
        return self.orders / self.wall_s

    def us(self, seconds: float) -> float:
        return seconds / self.orders * 1e6


@dataclass(slots=True)
class Bench:
    """An exchange's database with users of the benchmark's own."""

    postgres_url: str
    connection: db.Connection
    markets: Markets
    users: list[int]
    made: int = 0

    def orders(self, count: int, *, named: bool) -> list[Request]:
        """Buys far below sells, by all users in both markets; no two of the same name."""
        return [self._order(named) for _ in range(count)]

    def _order(self, named: bool) -> NewOrder:
        self.made += 1
        number = self.made
        buys = number % 2 == 0
        return NewOrder(
            self.users[number * 7 % USERS],
            _SYMBOLS[number // 2 % 2],
            m.Side.BUY if buys else m.Side.SELL,
            m.OrderType.LIMIT,
            m.TimeInForce.GTC,
            False,
            m.SelfTradePrevention.CANCEL_TAKER,
            (1_000_000 if buys else 90_000_000) + number % 500,
            10,
            0,
            f"bench-{number}" if named else "",
        )


async def tx1(postgres_url: str) -> list[Figure]:
    """TX1 through a committer of its own on a migrated exchange, beside the limit of the same rows.

    Its orders do not trade with each other, and are canceled in the end.
    """
    figures: list[Figure] = []
    async with _prepared(postgres_url) as bench:
        for size in ORDERS:
            limit = await _limit(bench, size)
            figures.append(Figure(f"limit: rows of {size} orders and a commit", limit.rate, "orders/s"))
            figures += _cpu(limit)
            for named in (False, True):
                spent = await _placed(bench, size, named)
                what = f"TX1 in batches of {size}{', with client_order_id' if named else ''}"
                figures.append(
                    Figure(what, spent.rate, "orders/s", "", f"{spent.rate / limit.rate:.2f} of the limit")
                )
                figures += _cpu(spent)
    return figures


def _cpu(spent: Spent) -> list[Figure]:
    return [
        Figure("  CPU in Python", spent.us(spent.python_s), "us/order"),
        Figure("  CPU in PostgreSQL's session", spent.us(spent.postgres_s), "us/order"),
    ]


@asynccontextmanager
async def _prepared(postgres_url: str) -> AsyncIterator[Bench]:
    async with db.connect(postgres_url, "bench tx1") as connection:
        markets = Markets()
        markets.fill([market for market, _ in await admin.list_markets(connection)])
        users = []
        for _ in range(USERS):
            user_id = await admin.create_user(connection, "bench")
            users.append(user_id)
            for market in (markets.named(symbol) for symbol in _SYMBOLS):
                for asset in (market.base, market.quote):
                    atoms = UNITS * 10**asset.scale
                    reference = f"bench {user_id} {asset.asset_id}"
                    await admin.deposit(connection, user_id, asset.asset_id, atoms, reference)
        bench = Bench(postgres_url, connection, markets, users)
        await connection.execute(_TABLES.encode())
        try:
            yield bench
        finally:
            await connection.execute("DROP SCHEMA bench_limit CASCADE")
            async with _committing(bench, USERS) as committer:
                await committer.submit([CancelAllOrders(user, "") for user in users])


@asynccontextmanager
async def _committing(bench: Bench, batch_requests: int) -> AsyncIterator[Committer]:
    committer = Committer(
        bench.postgres_url,
        bench.markets,
        Relays(PARTITIONS),
        batch_requests=batch_requests,
        queue_requests=QUEUE,
    )
    async with anyio.create_task_group() as group:
        await group.start(committer.run)
        yield committer
        committer.finish()


async def _placed(bench: Bench, size: int, named: bool) -> Spent:
    batches = [bench.orders(size, named=named) for _ in range(ORDERS[size] // size)]
    async with _committing(bench, size) as committer:

        async def place(orders: Sequence[Request]) -> None:
            for answer in await committer.submit(orders):
                assert isinstance(answer, Accepted), answer

        await place(bench.orders(1, named=False))  # The session is there, its statements are known.
        await place(bench.orders(size, named=named))
        return await _measured(bench, SESSION, batches, place)


async def _measured(
    bench: Bench,
    session: str,
    batches: Sequence[Sequence[Request]],
    send: Callable[[Sequence[Request]], Awaitable[None]],
    senders: int = SENDERS,
) -> Spent:
    cursor = await bench.connection.execute(_BACKENDS, [session])
    backends = [psutil.Process(pid) for (pid,) in await cursor.fetchall()]
    waiting = iter(batches)

    async def keep_sending() -> None:
        for batch in waiting:
            await send(batch)

    begin_s, python_s, postgres_s = time.perf_counter(), time.process_time(), _used_s(backends)
    async with anyio.create_task_group() as group:
        for _ in range(senders):
            group.start_soon(keep_sending)
    return Spent(
        sum(map(len, batches)),
        time.perf_counter() - begin_s,
        time.process_time() - python_s,
        _used_s(backends) - postgres_s,
    )


def _used_s(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


async def _limit(bench: Bench, size: int) -> Spent:
    """The bare limit: everything that is written was made before."""
    batches = [bench.orders(size, named=True) for _ in range(ORDERS[size] // size)]
    made: Iterator[_Made] = iter([_made(bench, batch) for batch in batches])
    await bench.connection.execute("TRUNCATE bench_limit.orders, bench_limit.outbox")
    async with await psycopg.AsyncConnection.connect(
        bench.postgres_url, autocommit=True, application_name=LIMIT_SESSION, prepare_threshold=1
    ) as connection:

        async def write(_: Sequence[Request]) -> None:
            rows, outbox = next(made)
            async with connection.pipeline():
                await connection.execute("BEGIN")
                await connection.execute(_UPDATE)
            async with connection.cursor() as cursor, cursor.copy(_LIMIT_COPY) as copy:
                await copy.write(rows)
            async with connection.pipeline():
                for row in outbox:
                    await connection.execute(_OUTBOX, row)
                await connection.execute("COMMIT")

        return await _measured(bench, LIMIT_SESSION, batches, write, senders=1)


_LIMIT_COPY = order_rows.COPY.replace("COPY orders", "COPY bench_limit.orders")
_Made = tuple[bytes, list[tuple[object, ...]]]


def _made(bench: Bench, batch: Sequence[Request]) -> _Made:
    """The COPY of a batch's orders, and its outbox rows."""
    places: dict[int, list[m.Command]] = {}
    rows: list[bytes] = []
    for request in batch:
        assert isinstance(request, NewOrder)
        market = bench.markets.named(request.symbol)
        bench.made += 1
        place = m.Place(
            bench.made,
            request.user_id,
            market.market_id,
            request.side,
            request.type,
            request.time_in_force,
            request.post_only,
            request.stp,
            request.price_ticks,
            request.qty_lots,
            request.quote_atoms,
            1,
            request.client_order_id,
        )
        places.setdefault(market.partition, []).append(place)
        rows.append(order_rows.packed_row(place, market.partition, bench.made, 1))
    first, last = bench.made - len(batch) + 1, bench.made
    outbox: list[tuple[object, ...]] = [
        (partition, first, last, 1, bytes(32), bytes(32), encode_commands(commands))
        for partition, commands in sorted(places.items())
    ]
    return order_rows.packed(rows), outbox


@asynccontextmanager
async def own_exchange() -> AsyncIterator[str]:
    """The libpq URL of a new exchange's database, on a PostgreSQL of its own."""
    data = Path(tempfile.mkdtemp(prefix="exchange-bench-"))
    try:
        async with embedded_postgres(data, free_port(), print) as (url, _):
            await migrate(url, PARTITIONS)
            async with db.connect(url, "bench prepare") as connection:
                for market in default_markets(PARTITIONS):
                    await admin.create_market(connection, market)
            yield url
    finally:
        shutil.rmtree(data, ignore_errors=True)


async def main() -> None:
    async with own_exchange() as postgres_url:
        print(as_markdown(await tx1(postgres_url)))


if __name__ == "__main__":
    anyio.run(main, backend_options={"use_uvloop": True})
