"""Random traffic on a desk: every kind of order and command, on both markets, from a seed.

What comes out is a database with a history: trades, self trades, halts, changed fees, sweeps, refusals,
settled in groups, archived in part, with orders still waiting above the watermark; and among them deposits
and withdrawals that were asked for, completed, canceled, and wait.
"""

from contextlib import suppress
from random import Random

import anyio

from common import admin, db, money
from common.acts import Acts
from common.audit_log import CLI, Actor
from common.core import messages as m
from common.core.errors import Conflict, InsufficientFunds
from daemons.order_service.requests import CancelAllOrders, CancelOrder, NewOrder, Request
from daemons.order_service.upkeep import archive
from tests.integration.order_service.desk import Desk, limit

PENDING = money.WithdrawalStatus.PENDING
SYMBOLS = ("BTC-USD", "ETH-USD")
PARTITIONS = (0, 1)
FEWEST_TRADES = 30
SETTLED_BATCHES = """
SELECT count(*) FROM outbox o JOIN watermarks w USING (partition) WHERE o.last_sequence <= w.sequence
"""
_PRICE = {"BTC-USD": 5_000_000, "ETH-USD": 300_000}
_KINDS = (
    (m.OrderType.LIMIT, m.TimeInForce.GTC, False),
    (m.OrderType.LIMIT, m.TimeInForce.GTC, False),
    (m.OrderType.LIMIT, m.TimeInForce.GTC, False),
    (m.OrderType.LIMIT, m.TimeInForce.GTC, True),
    (m.OrderType.LIMIT, m.TimeInForce.IOC, False),
    (m.OrderType.LIMIT, m.TimeInForce.FOK, False),
    (m.OrderType.MARKET, m.TimeInForce.IOC, False),
    (m.OrderType.MARKET, m.TimeInForce.FOK, False),
)


class Traffic:
    """Draws requests; refused ones (no funds, a halted market, an ended order) are part of it."""

    def __init__(self, desk: Desk, random: Random, users: list[int]) -> None:
        self._desk = desk
        self._random = random
        self._users = users
        self._placed: list[tuple[int, int]] = []
        self._count = 0
        self._acts = Acts(desk.connection, Actor("tester", CLI))

    async def round(self, batches: int, most: int = 12) -> None:
        """Commit batches of up to `most` requests, with an operator's command now and then."""
        for _ in range(batches):
            requests = [self._draw() for _ in range(self._random.randint(1, most))]
            for request, answer in zip(requests, await self._desk.submit(*requests), strict=True):
                order_id = getattr(answer, "order_id", 0)
                if isinstance(request, NewOrder) and order_id:
                    self._placed.append((request.user_id, order_id))
            if self._random.random() < 0.1:
                await self._operate()

    async def settle(self) -> None:
        """Everything that is waiting, in a few transactions of TX2 for each partition."""
        for partition in PARTITIONS:
            waiting = await self._desk.match(partition)
            while waiting:
                size = self._random.randint(1, 5)
                outcome = await self._desk.settle(partition, waiting[:size])
                assert len(outcome.fresh) == len(waiting[:size])
                waiting = waiting[size:]

    def _draw(self) -> Request:
        random = self._random
        dice, user_id = random.random(), random.choice(self._users)
        if dice < 0.12 and self._placed:
            return CancelOrder(*random.choice(self._placed[-60:]))
        if dice < 0.14:
            return CancelAllOrders(user_id, random.choice(("", *SYMBOLS)))
        return self._order(user_id)

    def _order(self, user_id: int) -> NewOrder:
        random, symbol = self._random, self._random.choice(SYMBOLS)
        kind, time_in_force, post_only = random.choice(_KINDS)
        side = random.choice(list(m.Side))
        market = kind is m.OrderType.MARKET
        by_quote = market and side is m.Side.BUY and random.random() < 0.5
        price_ticks = _PRICE[symbol] + 100 * (random.randint(-12, 8) + (4 if side is m.Side.SELL else 0))
        self._count += 1
        return NewOrder(
            user_id,
            symbol,
            side,
            kind,
            time_in_force,
            post_only,
            random.choice(list(m.SelfTradePrevention)),
            0 if market else price_ticks,
            0 if by_quote else random.randint(50, 3_000),
            random.randint(10**9, 10**12) if by_quote else 0,
            f"t{self._count}" if random.random() < 0.3 else "",
        )

    async def _operate(self) -> None:
        """New fees, or a market that halts until it is resumed by a later draw."""
        random, symbol = self._random, self._random.choice(SYMBOLS)
        await self.move_money()
        if random.random() < 0.5:
            await admin.set_market(
                self._desk.connection,
                symbol,
                maker_fee_bps=random.randint(0, 50),
                taker_fee_bps=random.randint(0, 50),
            )
        else:
            status = m.MarketStatus.HALTED if random.random() < 0.3 else m.MarketStatus.ACTIVE
            await admin.set_market(self._desk.connection, symbol, status=status)

    async def move_money(self) -> None:
        """A deposit or a step of a withdrawal, as an operator's act; refusals and repeats are part of it."""
        random, user_id = self._random, self._random.choice(self._users)
        symbol, amount = random.choice(("USD", "BTC")), f"{random.randint(1, 40)}.{random.randint(0, 99):02}"
        waiting = await money.list_withdrawals(self._desk.connection, status=PENDING)
        reference = f"m{random.randint(1, 60)}"
        with suppress(InsufficientFunds, Conflict):
            match random.choice("drrce") if waiting else random.choice("dr"):
                case "d":
                    await self._acts.deposit(user_id, symbol, amount, reference)
                case "r":
                    await self._acts.request_withdrawal(user_id, symbol, amount, "where to", reference)
                case "c":
                    await self._acts.complete_withdrawal(random.choice(waiting).withdrawal_id, reference)
                case _:
                    await self._acts.cancel_withdrawal(random.choice(waiting).withdrawal_id, reference)


async def make_history(desk: Desk, seed: int, *, rounds: int = 8, batches: int = 12) -> None:
    """A history with everything in it, its last commands not settled yet and its first ones archived."""
    random = Random(seed)
    users = [await desk.user() for _ in range(4)] + [await desk.user(usd=60_000, btc=1, eth=10)]
    traffic = Traffic(desk, random, users)
    for number in range(rounds):
        await traffic.round(batches)
        await traffic.settle()
        if number == rounds // 2:
            await archive_settled(desk)
    await _open_markets(desk)
    await traffic.settle()
    while await _fewest_trades(desk) < FEWEST_TRADES:  # A market that was halted for long has had few.
        await traffic.round(batches)
        await _open_markets(desk)
        await traffic.settle()
    for _ in range(12):
        await traffic.move_money()
    await traffic.round(4)
    await _open_markets(desk)
    await desk.submit(*_far_from_the_market(users[0]))  # Rest, whatever was drawn.
    await traffic.settle()
    await traffic.round(2)
    await desk.submit(*_far_from_the_market(users[1]))  # Wait above the watermark.
    await one_of_each(desk, users[0])


async def _fewest_trades(desk: Desk) -> int:
    """Of the two markets."""
    [row] = await desk.rows(
        "SELECT count(*) FILTER (WHERE market_id = 1), count(*) FILTER (WHERE market_id = 2) FROM trades"
    )
    return min(int(count) for count in row)


async def _open_markets(desk: Desk) -> None:
    for symbol in SYMBOLS:
        await admin.set_market(desk.connection, symbol, status=m.MarketStatus.ACTIVE)


async def one_of_each(desk: Desk, user_id: int) -> None:
    """A withdrawal that is completed, one that is canceled and one that waits, whatever was drawn."""
    acts = Acts(desk.connection, Actor("tester", CLI))
    await acts.deposit(user_id, "USD", "3", "for withdrawals")
    done, canceled, _ = [
        (await acts.request_withdrawal(user_id, "USD", "1", "where to", name))[0]
        for name in ("done", "canceled", "waits")
    ]
    await acts.complete_withdrawal(done.withdrawal_id, "tx 1")
    await acts.cancel_withdrawal(canceled.withdrawal_id, "no such address")


def _far_from_the_market(user_id: int) -> list[Request]:
    return [
        limit(user_id, side, price, 1_000, symbol=symbol)
        for symbol in SYMBOLS
        for side, price in ((m.Side.BUY, 20_000), (m.Side.SELL, 50_000_000))
    ]


async def archive_settled(desk: Desk) -> None:
    """What order-service's upkeep does, until nothing settled is left in the outbox."""
    async with (
        db.pool(desk.url, name="order-service test", max_size=1) as pool,
        anyio.create_task_group() as group,
    ):
        group.start_soon(archive, pool)
        while (await desk.rows(SETTLED_BATCHES))[0][0]:
            await anyio.sleep(0.02)
        group.cancel_scope.cancel()
