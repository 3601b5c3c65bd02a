"""From the command batch to the settled trade, each stage alone: `python -m bench.tx2`.

A private PostgreSQL, TX1, the engine and TX2 one after the other, without Kafka. The flow: orders of 50
users in two markets, each in a partition of its own. Of ten orders six rest away from the touch, and four
meet at one price, so that about 40 % of all orders trade. Figures are microseconds of CPU per order: of
this process by its own clock, of PostgreSQL by that of the one backend (its fsync and its background
writers stand beside, in the milliseconds of the whole).
"""

import argparse
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import psutil

from bench.table import Figure, as_markdown
from bench.tx2_limit import bare_limit
from common import admin, db, wire
from common.config import Settings
from common.core import messages as m
from common.core.engine import Engine
from common.migrate import migrate
from common.stops import MATCHING, SETTLEMENT
from common.supervise import calm_collector
from common.topics import topics
from common.trip import Trips
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.prepare import default_markets
from daemons.matching.following import Following
from daemons.matching.kept import KeptBatch
from daemons.matching.outbound import book_messages
from daemons.order_service.markets import Markets
from daemons.order_service.placement import Placement
from daemons.order_service.requests import NewOrder
from daemons.order_service.settlement import Delivery, settle

ORDERS, USERS, PARTITIONS = 30_000, 50, 2
ASSETS = (1, 2, 3)
RICH_ATOMS = 10**15
MID_TICKS = 100_000
TOKEN = 1
ROUND_ROWS = 2_500  # About what one TX2 holds under load.

RELAY, DECODE, ENGINE, EVENTS, BOOKS, KEEP = (
    "encode the records of the relay",
    "decode the batches",
    "the engine",
    "encode settlements and trades",
    "encode book updates",
    "keep what is not settled",
)
SETTLEMENTS, TX2, POSTGRES, UPDATES = (
    "decode the settlements",
    "TX2 in Python",
    "TX2 in PostgreSQL",
    "encode the order updates",
)
PARTS = {
    "relay": ("<= 2 us/order", [RELAY]),
    "engine": ("", [ENGINE]),
    "matching that leads, without its engine": ("<= 25 us/order", [DECODE, EVENTS, BOOKS]),
    "matching that stands by, without its engine": ("<= 12 us/order", [DECODE, KEEP]),
    "settler": ("<= 40 us/order", [SETTLEMENTS, TX2, UPDATES]),
    "settler's PostgreSQL": ("<= 35 us/order", [POSTGRES]),
}

_OUTBOX = """
SELECT first_sequence, time_us, previous_chain, chain, commands FROM outbox
WHERE partition = %s AND first_sequence > %s ORDER BY first_sequence
"""


@dataclass
class Cpu:
    """CPU seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def spent(self, stage: str, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
        begin_s = clock()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + clock() - begin_s


async def stages(orders: int, batch: int) -> list[Figure]:
    """Every stage of `orders` orders that TX1 wrote in batches of `batch`."""
    cpu = Cpu()
    calm_collector()
    async with _desk() as (connection, markets, placement):
        await _place(connection, placement, orders, batch)
        rounds = await _match(connection, cpu)
        trades = sum(len(one.settlement.trades) for round_ in rounds for one in round_)
        begin_s = time.perf_counter()
        settlements = await _settle(connection, markets, rounds, cpu)
        whole_s = time.perf_counter() - begin_s
        with cpu.spent(UPDATES):
            for settlement in settlements:
                list(wire.encode_order_updates(settlement, markets.by_id))
        limit = await bare_limit(connection, settlements)
    return [
        *_by_part(cpu, orders, batch),
        *limit,
        Figure("  TX2 alone, one session", orders / whole_s, "/s"),
        Figure("  trades in it", trades / orders, "/order"),
    ]


def _by_part(cpu: Cpu, orders: int, batch: int) -> list[Figure]:
    """A sum for each process that has a goal, and its stages under it."""
    figures: list[Figure] = []
    for part, (goal, names) in PARTS.items():
        each = [Figure(f"  {name}", cpu.seconds[name] / orders * 1e6, "us/order") for name in names]
        total = sum(figure.value for figure in each)
        figures.append(Figure(f"{part}, batches of {batch}", total, "us/order", goal))
        figures += each if len(each) > 1 else []
    return figures


@asynccontextmanager
async def _desk() -> AsyncIterator[tuple[db.Connection, Markets, Placement]]:
    """A migrated database with the default markets and TX1; its leases are held by nobody else."""
    with tempfile.TemporaryDirectory(prefix="exchange-bench-") as folder:
        async with (
            embedded_postgres(Path(folder), free_port(), lambda _: None) as (url, _),
            _migrated(url) as connection,
            db.connect(url, "order-service tx1", by_key=True) as tx1,
        ):
            markets = Markets()
            markets.fill([market for market, _ in await admin.list_markets(connection)])
            yield connection, markets, Placement(tx1, markets)


@asynccontextmanager
async def _migrated(url: str) -> AsyncIterator[db.Connection]:
    await migrate(url, PARTITIONS)
    async with db.connect(url, "order-service tx2", by_key=True) as connection:
        for market in default_markets(PARTITIONS):
            await admin.create_market(connection, market)
        for service in (MATCHING, SETTLEMENT):
            await connection.execute(
                "INSERT INTO partition_leader_locks SELECT %s, p, 'bench', %s, now() + interval '1 day'"
                " FROM generate_series(0, %s) p",
                [service, TOKEN, PARTITIONS - 1],
            )
        yield connection


async def _place(connection: db.Connection, placement: Placement, orders: int, batch: int) -> None:
    draw = random.Random(5)
    users = [await admin.create_user(connection, "bench") for _ in range(USERS)]
    for user_id in users:
        for asset_id in ASSETS:
            await admin.deposit(connection, user_id, asset_id, RICH_ATOMS, f"{user_id} {asset_id}")
    ids: list[int] = []
    for start in range(0, orders, batch):
        requests = [_order(draw, users, number) for number in range(start, min(start + batch, orders))]
        while len(ids) < len(requests):
            first = await placement.next_block()
            ids += range(first, first + 1_000)
        await placement.commit(requests, ids[: len(requests)])
        del ids[: len(requests)]


def _order(draw: random.Random, users: Sequence[int], number: int) -> NewOrder:
    """Two pairs that meet in each ten; the rest stands up to 1,000 ticks away from where they do."""
    buying = bool(number % 2)
    meets = number % 10 < 4
    away_ticks = 0 if meets else draw.randint(1, 1_000)
    return NewOrder(
        draw.choice(users),
        "ETH-USD" if number // 10 % 2 else "BTC-USD",
        m.Side.BUY if buying else m.Side.SELL,
        m.OrderType.LIMIT,
        m.TimeInForce.GTC,
        False,
        m.SelfTradePrevention.CANCEL_TAKER,
        MID_TICKS - away_ticks if buying else MID_TICKS + away_ticks,
        draw.randint(100, 300),
        0,
        f"bench-{number}",
    )


async def _match(connection: db.Connection, cpu: Cpu) -> list[list[Delivery]]:
    """What matching does with the outbox, as a leader and as a standby; gives the rounds of TX2."""
    names = topics(Settings())
    rounds: list[list[Delivery]] = []
    for partition in range(PARTITIONS):
        cursor = await connection.execute(_OUTBOX, [partition, 0])
        rows = await cursor.fetchall()
        with cpu.spent(RELAY):
            records = [
                wire.encode_batch(
                    partition=partition,
                    first_sequence=row[0],
                    time_us=row[1],
                    previous_chain=row[2],
                    chain=row[3],
                    commands=row[4],
                )
                for row in rows
            ]
        with cpu.spent(DECODE):
            batches = [wire.decode_batch(record) for record in records]
        following = Following(Engine(partition), names, (), 0)
        with cpu.spent(ENGINE):
            applied = [following.engine.apply(batch) for batch in batches]
        with cpu.spent(KEEP):
            kept = [KeptBatch.of(one, 0) for one in applied]
            for one in kept:
                following.kept.add(one)
        with cpu.spent(EVENTS):
            events = [one.events(names) for one in kept]
        with cpu.spent(BOOKS):
            for each in applied:
                book_messages(each.books, names, partition)
        parts = [each.value for some in events for each in some if each.topic == names.settlements]
        with cpu.spent(SETTLEMENTS):
            joiner = wire.SettlementJoiner()
            joined = [joiner.add(part, TOKEN) for part in parts]
        rounds += _rounds([one for one in joined if one is not None])
    return rounds


def _rounds(settlements: Sequence[m.Settlement]) -> list[list[Delivery]]:
    rounds: list[list[Delivery]] = [[]]
    rows = 0
    for number, settlement in enumerate(settlements):
        rounds[-1].append(Delivery(settlement, TOKEN, number, number))
        rows += len(settlement.orders) + len(settlement.trades)
        if rows >= ROUND_ROWS:
            rounds.append([])
            rows = 0
    return [one for one in rounds if one]


async def _settle(
    connection: db.Connection, markets: Markets, rounds: Sequence[Sequence[Delivery]], cpu: Cpu
) -> list[m.Settlement]:
    backend = psutil.Process(connection.info.backend_pid)

    def backend_s() -> float:
        times = backend.cpu_times()
        return times.user + times.system

    settled: list[m.Settlement] = []
    trips = Trips(connection)
    with cpu.spent(TX2), cpu.spent(POSTGRES, backend_s):
        for deliveries in rounds:
            outcome = await settle(
                trips,
                deliveries,
                partition=deliveries[0].settlement.partition,
                settlement_token=TOKEN,
                told_offset=0,
                markets=markets.by_id,
            )
            assert len(outcome.fresh) == len(deliveries)
            settled += outcome.told
    return settled


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.tx2", description=__doc__)
    parser.add_argument("--orders", type=int, default=ORDERS)
    parser.add_argument("--batch", type=int, nargs="*", default=[500, 1_000])
    given = parser.parse_args()
    figures: list[Figure] = []
    for batch in given.batch:
        figures += anyio.run(stages, given.orders, batch, backend_options={"use_uvloop": True})
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
