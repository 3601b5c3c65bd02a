"""The live load: several users who trade and listen, all the time, whatever happens to the exchange.

`Load.rest` lets every user finish what is under way, retries included, so that everything has an answer
and the oracle can compare; `Load.go_on` lets them trade again.
"""

import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.abc

from tests.chaos.bot import Bot, Prices
from tests.chaos.client import Client
from tests.chaos.doors import Door, Units, grpc_door, http_door
from tests.chaos.listener import Listener
from tests.chaos.told import UNIT, Account, Told, atoms
from tests.chaos.world import ChaosFailure
from tests.harness.exchange import Exchange

HTTP_USERS, GRPC_USERS = 10, 2
TASKS = 2  # Of each user, which trade side by side.
START = {"BTC-USD": 60_000 * UNIT, "ETH-USD": 3_000 * UNIT}
REST_S = 60.0


@dataclass(frozen=True, slots=True)
class Rate:
    """How much load there is: turns a second over all users, and how many users there are."""

    turns_per_s: float = 120.0
    http_users: int = HTTP_USERS
    grpc_users: int = GRPC_USERS


class Load:
    def __init__(self, exchange: Exchange, rate: Rate, seed: int) -> None:
        self.told = Told()
        self.began_s = time.monotonic()
        self.bots: list[Bot] = []
        self._exchange = exchange
        self._rate = rate
        self._seed = seed
        self._busy = 0
        self._changed = anyio.Event()
        self._resting = False

    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self.began_s

    async def rest(self, within_s: float = REST_S) -> None:
        """No new turns; when every turn under way has its answer. Raises ChaosFailure when one does not."""
        self._resting = True
        with anyio.move_on_after(within_s):
            while self._busy:
                await self._changed.wait()
            return
        waiting = [f"{name} {who}" for bot in self.bots for name, who in bot.waiting.items()]
        raise ChaosFailure(f"no answer within {within_s:g} s: {waiting[:20]}\n{self._exchange.tails()}")

    def go_on(self) -> None:
        self._resting = False
        self._tell()

    async def prepare(self) -> tuple[Units, Prices]:
        """Users join, and the markets are looked up."""
        rate, told = self._rate, self.told
        async with Client(self._exchange.ports.gateway) as client:
            units = Units((await client.ask("GET", "/api/v1/markets")).json())
            prices = Prices(units, START, random.Random(f"{self._seed}/prices"))
            for number in range(rate.http_users + rate.grpc_users):
                joined = (await client.ask("POST", "/api/v1/test/join")).json()
                start = {row["asset"]: atoms(row["available"]) for row in joined["balances"]}
                account = Account(joined["user_id"], joined["token"], start, told.violations)
                told.accounts.append(account)
                rng = random.Random(f"{self._seed}/bot/{number}")
                self.bots.append(Bot(account, told, prices, rng, f"b{number}", self.now_s))
        return units, prices

    async def run(self, units: Units, group: anyio.abc.TaskGroup) -> None:
        for number, bot in enumerate(self.bots):
            group.start_soon(Listener(self._exchange.ws_url, bot.account, self.told).run)
            by_grpc = number >= self._rate.http_users
            for _ in range(TASKS):
                group.start_soon(self._trade, bot, units, by_grpc)

    async def _trade(self, bot: Bot, units: Units, by_grpc: bool) -> None:
        token = bot.account.token
        pause_s = len(self.bots) * TASKS / self._rate.turns_per_s
        rng = random.Random(f"{self._seed}/{token}")
        async with AsyncExitStack() as stack:
            doors: list[Door] = []
            for _ in range(2):
                if by_grpc:
                    ports = self._exchange.ports.of("orders_port")
                    address = f"127.0.0.1:{ports[int(bot.account.user_id) % len(ports)]}"
                    door = await stack.enter_async_context(grpc_door(address, token, units, self.told))
                else:
                    port = self._exchange.ports.gateway
                    door = await stack.enter_async_context(http_door(port, token, self.told))
                doors.append(door)
            due_s = anyio.current_time() + rng.uniform(0, pause_s)
            while True:
                now_s = anyio.current_time()
                due_s = max(due_s + pause_s, now_s - pause_s)  # What a stop has cost is not made up for.
                await anyio.sleep(max(0.0, due_s - now_s))
                await self._gate()
                self._busy += 1
                try:
                    await bot.turn(doors)
                finally:
                    self._busy -= 1
                    self._tell()

    async def _gate(self) -> None:
        while self._resting:
            await self._changed.wait()

    def _tell(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


@asynccontextmanager
async def running_load(exchange: Exchange, rate: Rate, seed: int) -> AsyncIterator[Load]:
    """The load while the body runs."""
    load = Load(exchange, rate, seed)
    units, _ = await load.prepare()
    async with anyio.create_task_group() as group:
        await load.run(units, group)
        yield load
        group.cancel_scope.cancel()
