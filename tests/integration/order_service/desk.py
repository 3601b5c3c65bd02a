"""A desk: TX1, the engine and TX2 on a real database, one after the other, without Kafka between them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from common import admin, db, wire
from common.audit import audit
from common.core import messages as m
from common.core.engine import Engine
from common.migrate import migrate
from common.stops import MATCHING, SETTLEMENT
from common.trip import Trips
from daemons.local.prepare import default_markets
from daemons.order_service.markets import Markets
from daemons.order_service.placement import Placement
from daemons.order_service.requests import Accepted, Answer, NewOrder, Request
from daemons.order_service.settlement import Delivery, Outcome, settle

USD, BTC, ETH = 1, 2, 3
TOKEN = 7
UNIT = 10**8

_OUTBOX = """
SELECT first_sequence, time_us, previous_chain, chain, commands FROM outbox
WHERE partition = %s AND first_sequence > %s ORDER BY first_sequence
"""


@dataclass
class Desk:
    """Drives the spine by hand; every step is one call."""

    url: str
    connection: db.Connection
    markets: Markets
    placement: Placement
    engines: dict[int, Engine] = field(default_factory=dict)
    offset: int = 0

    async def user(self, usd: int = 1_000_000, btc: int = 100, eth: int = 1_000) -> int:
        user_id = await admin.create_user(self.connection, "tester")
        for asset_id, units in ((USD, usd), (BTC, btc), (ETH, eth)):
            if units:
                await admin.deposit(self.connection, user_id, asset_id, units * UNIT, f"{user_id} {asset_id}")
        return user_id

    async def submit(self, *requests: Request) -> list[Answer]:
        first = await self.placement.next_block()
        return (await self.placement.commit(requests, range(first, first + len(requests)))).answers

    async def place(self, request: NewOrder) -> Accepted:
        [answer] = await self.submit(request)
        assert isinstance(answer, Accepted), answer
        return answer

    async def batches(self, partition: int, above: int = 0) -> list[m.Batch]:
        cursor = await self.connection.execute(_OUTBOX, [partition, above])
        return [
            wire.decode_batch(
                wire.encode_batch(
                    partition=partition,
                    first_sequence=row[0],
                    time_us=row[1],
                    previous_chain=row[2],
                    chain=row[3],
                    commands=row[4],
                )
            )
            for row in await cursor.fetchall()
        ]

    async def match(self, partition: int) -> list[Delivery]:
        """Apply what the engine has not seen, and give what it would publish."""
        engine = self.engines.setdefault(partition, Engine(partition))
        deliveries = []
        for batch in await self.batches(partition, engine.sequence):
            self.offset += 1
            deliveries.append(Delivery(engine.apply(batch).settlement, TOKEN, self.offset, self.offset))
        return deliveries

    async def settle(self, partition: int, deliveries: list[Delivery]) -> Outcome:
        return await settle(
            Trips(self.connection),  # Anew, because a test's rollback makes the server forget statements.
            deliveries,
            partition=partition,
            settlement_token=TOKEN,
            told_offset=0,
            markets=self.markets.by_id,
        )

    async def run(self, partition: int) -> None:
        """Match and settle everything that is waiting."""
        outcome = await self.settle(partition, await self.match(partition))
        assert len(outcome.told) == len(outcome.fresh)
        assert (outcome.gap, outcome.fork, outcome.lease_lost) == (False, False, False)

    async def account(self, user_id: int, asset_id: int) -> tuple[int, int]:
        """(available, held) in atoms."""
        rows = await self.rows(
            "SELECT available_atoms, held_atoms FROM accounts WHERE user_id = %s AND asset_id = %s",
            user_id,
            asset_id,
        )
        return (rows[0][0], rows[0][1]) if rows else (0, 0)

    async def rows(self, statement: str, *given: object) -> list[tuple[int, ...]]:
        cursor = await self.connection.execute(statement.encode(), given)
        return await cursor.fetchall()

    async def check_money(self) -> None:
        """The exchange's own audit finds nothing."""
        assert [finding for finding in await audit(self.connection) if not finding.ok] == []


def limit(
    user_id: int,
    side: m.Side,
    price: int,
    lots: int,
    *,
    client: str = "",
    symbol: str = "BTC-USD",
    **more: object,
) -> NewOrder:
    order = NewOrder(
        user_id,
        symbol,
        side,
        m.OrderType.LIMIT,
        m.TimeInForce.GTC,
        False,
        m.SelfTradePrevention.CANCEL_TAKER,
        price,
        lots,
        0,
        client,
    )
    for name, value in more.items():
        setattr(order, name, value)
    return order


@asynccontextmanager
async def open_desk(url: str) -> AsyncIterator[Desk]:
    """A migrated database with the default markets, known to their engines and settled."""
    await migrate(url, 4)
    async with (
        db.connect(url, "order-service test") as connection,
        db.connect(url, "order-service tx1") as tx1,
    ):
        for market in default_markets(4):
            await admin.create_market(connection, market)
        for service in (MATCHING, SETTLEMENT):
            await connection.execute(
                "INSERT INTO partition_leader_locks SELECT %s, p, 'test', %s, now() + interval '1 hour'"
                " FROM generate_series(0, 3) p",
                [service, TOKEN],
            )
        markets = Markets()
        markets.fill([market for market, _ in await admin.list_markets(connection)])
        desk = Desk(url, connection, markets, Placement(tx1, markets))
        for partition in range(4):
            await desk.run(partition)
        yield desk
