"""The two bots of `exchange up --demo`, through the public HTTP API alone: `demo URL TOKENS_FILE`.

Each market has a price that wanders at random. The maker keeps a ladder of limit orders around it and
takes its old ones back; the taker crosses the spread now and then. They are gentle (a few orders a second in
all), recharge when low, and wait when the exchange is busy, away or restarting. Their tokens lie in a file,
so that a restart goes on as the same users.
"""

import json
import os
import random
import sys
from collections import deque
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import anyio
import httpx

_PACE_S = 0.5
_RECHARGE_S = 60.0
_TIMEOUT_S = 10.0
_LONGEST_WAIT_S = 10.0
_LADDER = 12  # Resting orders of the maker on each side.
_START = {"BTC-USD": Decimal(65_000), "ETH-USD": Decimal(3_400)}
_SIZE_USD = (20.0, 400.0)


@dataclass(slots=True)
class Wander:
    """A price that drifts at random and is drawn back to where it began. In whole units of quote."""

    start: float
    price: float
    spread: float = 0.0004

    def step(self, dice: random.Random) -> None:
        pull = 0.002 * (self.start - self.price)
        self.price = max(self.start / 4, self.price + pull + dice.gauss(0, 0.0004 * self.price))


@dataclass(slots=True)
class Market:
    """A market as GET /markets describes it, and where its price wanders."""

    symbol: str
    tick: Decimal
    lot: Decimal
    wander: Wander
    resting: dict[str, deque[str]] = field(default_factory=lambda: {"BUY": deque(), "SELL": deque()})

    def price(self, value: float) -> str:
        return str(_rounded(Decimal(value), self.tick))

    def quantity(self, usd: float) -> str:
        return str(max(self.lot, _rounded(Decimal(usd / self.wander.price), self.lot)))


def _rounded(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).quantize(Decimal(1), ROUND_HALF_UP) * step


class Bot:
    """A user and the calls it makes. Every call waits out an exchange that is busy or away."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """The answer, whatever its status below 500 (and not 429). An order is never sent twice blindly.

        It carries a client_order_id, so that asking again after a lost answer is safe.
        """
        wait_s = 0.2
        while True:
            try:
                response = await self._client.request(method, path, json=body, headers=self._headers)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if response.status_code < 500 and response.status_code != 429:
                    return response
                said = response.text
            print(f"{method} {path}: {said}; again in {wait_s:.1f} s", flush=True)
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def place(self, order: dict[str, object]) -> str:
        """Place it; gives the order's id, or "" when it was refused (and recharges when funds are low)."""
        order["client_order_id"] = f"demo-{random.getrandbits(64):016x}"  # Not a secret.
        response = await self.call("POST", "/api/v1/orders", order)
        if response.status_code in (200, 202):
            return str(response.json()["order_id"])
        if "INSUFFICIENT_FUNDS" in response.text:
            await self.recharge()
        return ""

    async def cancel(self, order_id: str) -> None:
        await self.call("DELETE", f"/api/v1/orders/{order_id}")  # 409 when it was filled: just as well.

    async def recharge(self) -> None:
        await self.call("POST", "/api/v1/test/recharge")


async def make(bot: Bot, market: Market, dice: random.Random) -> None:
    """Quote for ever: one order a step, the older ones on that side taken back."""
    while True:
        market.wander.step(dice)
        side = dice.choice(("BUY", "SELL"))
        away = market.wander.spread * (0.5 + dice.expovariate(0.5))
        price = market.wander.price * (1 - away if side == "BUY" else 1 + away)
        order_id = await bot.place(
            {
                "symbol": market.symbol,
                "side": side,
                "type": "LIMIT",
                "price": market.price(price),
                "quantity": market.quantity(dice.uniform(*_SIZE_USD)),
                "stp": "CANCEL_MAKER",
            }
        )
        resting = market.resting[side]
        if order_id:
            resting.append(order_id)
        while len(resting) > _LADDER:
            await bot.cancel(resting.popleft())
        await anyio.sleep(_PACE_S * dice.uniform(0.5, 1.5))


async def take(bot: Bot, market: Market, dice: random.Random) -> None:
    """Cross the spread for ever: an IOC order through it, or a market order for an amount of money."""
    while True:
        await anyio.sleep(_PACE_S * dice.uniform(1, 4))
        side = dice.choice(("BUY", "SELL"))
        usd = dice.uniform(*_SIZE_USD) / 2
        order: dict[str, object] = {"symbol": market.symbol, "side": side}
        if side == "BUY" and dice.random() < 0.3:
            order |= {"type": "MARKET", "quote_quantity": f"{usd:.2f}"}
        else:
            far = 1.002 if side == "BUY" else 0.998
            order |= {
                "type": "LIMIT",
                "time_in_force": "IOC",
                "price": market.price(market.wander.price * far),
                "quantity": market.quantity(usd),
            }
        await bot.place(order)


async def keep_rich(bot: Bot) -> None:
    """What one bot loses to the other in fees comes back before it is missed."""
    while True:
        await anyio.sleep(_RECHARGE_S)
        await bot.recharge()


async def run(url: str, tokens_file: Path) -> None:
    dice = random.Random()  # noqa: S311  # A market for the eye; no seed is wanted.
    limits = httpx.Limits(max_connections=8)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits, trust_env=False) as client:
        maker, taker = await _bots(client, tokens_file)
        markets = await _markets(maker)
        await maker.call("DELETE", "/api/v1/orders")  # What an earlier run left in the book.
        async with anyio.create_task_group() as group:
            for bot in (maker, taker):
                group.start_soon(keep_rich, bot)
            for market in markets:
                group.start_soon(make, maker, market, dice)
                group.start_soon(take, taker, market, dice)


async def _bots(client: httpx.AsyncClient, tokens_file: Path) -> list[Bot]:
    """Two users: those of the last run when they are still known, or new ones."""
    tokens = await anyio.to_thread.run_sync(_read_tokens, tokens_file)
    bots = []
    for number in range(2):
        token = tokens[number] if number < len(tokens) else ""
        if not token or (await Bot(client, token).call("GET", "/api/v1/accounts")).status_code == 401:
            joined = await Bot(client, "").call("POST", "/api/v1/test/join")
            token = str(joined.raise_for_status().json()["token"])
        tokens[number : number + 1] = [token]
        bots.append(Bot(client, token))
    await anyio.to_thread.run_sync(_write_tokens, tokens_file, tokens)
    return bots


async def _markets(bot: Bot) -> list[Market]:
    """Those of the default markets that are there; each price goes on from its last trade."""
    markets = []
    for found in (await bot.call("GET", "/api/v1/markets")).raise_for_status().json():
        symbol = str(found["symbol"])
        if symbol not in _START:
            continue
        last = await bot.call("GET", f"/api/v1/trades?symbol={symbol}&limit=1")
        trades = last.raise_for_status().json()
        start = float(_START[symbol])
        price = float(trades[0]["price"]) if trades else start
        steps = Decimal(found["tick_size"]), Decimal(found["lot_size"])
        markets.append(Market(symbol, *steps, Wander(start, price)))
    return markets


def _read_tokens(path: Path) -> list[str]:
    try:
        return [str(token) for token in json.loads(path.read_text())]
    except (FileNotFoundError, ValueError):
        return []


def _write_tokens(path: Path, tokens: list[str]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(tokens, file)


if __name__ == "__main__":
    anyio.run(run, sys.argv[1], Path(sys.argv[2]))
