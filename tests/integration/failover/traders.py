"""Users who trade without a pause, and what they were answered while daemons come and go."""

import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import anyio

from common import db
from tests.harness.exchange import Exchange, User
from tests.integration.failover.plain_http import Answer, Client, ClosedInPeace, CutOff

PRICES = {"BTC-USD": "50000", "ETH-USD": "3000"}
PAUSE_S = 0.02  # Of a trader after each answer; eight of them make a few hundred requests a second.
AGAIN_S = 0.05
LOOK_S = 0.01
TRADERS = 4  # In each market, every other one a buyer.
READS = (
    "/api/v1/orders?limit=5",
    "/api/v1/accounts",
    "/api/v1/fills?limit=5",
    "/api/v1/orderbook?symbol={symbol}",
    "/api/v1/trades?symbol={symbol}",
    "/api/v1/ticker?symbol={symbol}",
    "/api/v1/markets",
)

_NEWEST = """
SELECT coalesce(max(t.trade_id), 0) FROM trades t JOIN markets m USING (market_id) WHERE m.symbol = %s
"""


@dataclass(slots=True)
class Told:
    """What the traders were answered. `wrong` is empty when all of it was in order."""

    statuses: Counter[int] = field(default_factory=Counter)
    busy: Counter[str] = field(default_factory=Counter)  # Answers of 503 with Retry-After.
    closed_in_peace: int = 0
    wrong: list[str] = field(default_factory=list)
    what: str = ""  # What is being done to the exchange, for the messages.

    def take(self, request: str, answer: Answer) -> None:
        self.statuses[answer.status] += 1
        busy = answer.status == 503 and int(answer.headers.get("retry-after", "0")) > 0
        if busy:
            self.busy[f"{self.what}: {request.partition('?')[0]}: {answer.body['error']['message']}"] += 1
        elif answer.status >= 400:
            self.wrong.append(f"{self.what}: {request}: {answer}")


class Trader:
    """Buys, or sells, at one price, and reads after each order.

    Always the same side: with sides at random a market has none of one now and then, and no trade for 0.35 s
    with nobody killed (seen in 40 s), which would be taken for a stop.
    """

    def __init__(
        self, exchange: Exchange, user: User, symbol: str, side: str, draw: Random, told: Told
    ) -> None:
        self._client = Client(exchange.ports.gateway, user.token)
        self._symbol = symbol
        self._side = side
        self._draw = draw
        self._told = told
        self._number = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self._order()
                await anyio.sleep(PAUSE_S)
                path = self._draw.choice(READS).format(symbol=self._symbol)
                await self._ask("GET", path)
                await anyio.sleep(PAUSE_S)
        finally:
            self._client.close()

    async def _order(self) -> None:
        """One order in five has no name of its own, and is not sent again when nobody knows."""
        self._number += 1
        order = {
            "symbol": self._symbol,
            "side": self._side,
            "type": "LIMIT",
            "price": PRICES[self._symbol],
            "quantity": "0.001",
        }
        if self._draw.randrange(5):
            order["client_order_id"] = f"n{self._number}"
        while True:
            answer = await self._ask("POST", "/api/v1/orders", order)
            if answer is None or answer.status < 400 or "client_order_id" not in order:
                return
            await anyio.sleep(AGAIN_S)

    async def _ask(self, method: str, path: str, body: object = None) -> Answer | None:
        """The answer, counted; None when there was none."""
        while True:
            try:
                answer = await self._client.ask(method, path, body)
            except ClosedInPeace:
                self._told.closed_in_peace += 1
                continue
            except CutOff as error:
                self._told.wrong.append(f"{self._told.what}: {method} {path}: {error}")
                return None
            self._told.take(f"{method} {path}", answer)
            return answer


@dataclass(slots=True)
class Flow:
    """How trades of one market get settled: the longest time without a new one, and during what."""

    longest_s: float = 0.0
    during: str = ""

    async def watch(self, exchange: Exchange, symbol: str, told: Told) -> None:
        """Look at PostgreSQL until cancelled: a trade's own time says when its order came."""
        newest, since_s, during = 0, math.inf, told.what
        async with db.connect(exchange.settings.postgres_url, "flow of trades") as connection:
            while True:
                cursor = await connection.execute(_NEWEST, [symbol])
                row = await cursor.fetchone()
                assert row is not None
                now_s = anyio.current_time()
                if now_s - since_s > self.longest_s:
                    self.longest_s, self.during = now_s - since_s, f"{during} to {told.what}"
                if row[0] != newest:
                    newest, since_s, during = row[0], now_s, told.what
                await anyio.sleep(LOOK_S)


@asynccontextmanager
async def trading(exchange: Exchange, seed: int) -> AsyncIterator[tuple[Told, dict[str, Flow]]]:
    """Buyers and sellers in each market while the body runs, and what they and the markets went through."""
    told, flows = Told(), {symbol: Flow() for symbol in PRICES}
    async with anyio.create_task_group() as group:
        for number in range(TRADERS * len(PRICES)):
            symbol = list(PRICES)[number % len(PRICES)]
            side = "BUY" if number // len(PRICES) % 2 else "SELL"
            user = await anyio.to_thread.run_sync(exchange.join)
            group.start_soon(Trader(exchange, user, symbol, side, Random(seed + number), told).run)
        for symbol, flow in flows.items():
            group.start_soon(flow.watch, exchange, symbol, told)
        yield told, flows
        group.cancel_scope.cancel()
