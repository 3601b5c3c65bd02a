"""One user's trading: what to send next, and sending it until there is an answer.

Most orders are limits around a price that wanders, so that about two in five trade; the others are of
every kind there is. Each has a client_order_id of its own, and after an error or no answer the same is
asked again: the truth, once.
"""

import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from tests.chaos.doors import AskAgain, Door, Units
from tests.chaos.told import ENDED, Accepted, Account, Refused, Sent, Told, Want

T = TypeVar("T")

MOST_RESTING = 25  # Of one bot: beyond it the oldest is canceled.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5
_AGGRESSIVE = 0.36
_BATCH = (3, 12)
_FAR = 15  # Ticks of the price's steps that an order lies from the middle, at most.


class Prices:
    """A price for each market that wanders, shared by all bots; atoms."""

    def __init__(self, units: Units, start: dict[str, int], rng: random.Random) -> None:
        self.units = units
        self.symbols = sorted(start)
        self._rng = rng
        self._start = start
        self._middle = dict(start)

    def middle(self, symbol: str) -> int:
        """It moves with every look, and is drawn back to where it began."""
        rng = self._rng
        if rng.random() < 0.2:
            step = 20 * self.units.tick[symbol] * rng.choice((-1, 1))
            away = self._middle[symbol] - self._start[symbol]
            if abs(away + step) < self._start[symbol] // 10:
                self._middle[symbol] += step
        return self._middle[symbol]


class Bot:
    """`turn` does one thing that a user does; several tasks may take turns of one bot at a time."""

    def __init__(
        self,
        account: Account,
        told: Told,
        prices: Prices,
        rng: random.Random,
        prefix: str,
        now_s: Callable[[], float],
    ) -> None:
        self.account = account
        self._told = told
        self._prices = prices
        self._rng = rng
        self._prefix = prefix
        self._now_s = now_s
        self._numbers = itertools.count(1)
        self._resting: deque[str] = deque()
        self.waiting: dict[str, str] = {}  # What is asked again and again, for a failure's message.

    async def turn(self, doors: Sequence[Door]) -> None:
        """`doors`: two of this user's; the second one is for twins."""
        door, draw = doors[0], self._rng.random()
        if len(self._resting) > MOST_RESTING:
            await self._cancel(door, self._resting.popleft())
        elif draw < 0.004:
            self._resting.clear()
            await self._insist("cancel all", door.cancel_all)
        elif draw < 0.024:
            await self._batch(door)
        elif draw < 0.034:
            await self._twins(doors)
        elif draw < 0.044:
            await self._repeat(door)
        else:
            await self._place(door, self._new(self._want()))

    def _want(self) -> Want:
        rng = self._rng
        symbol = rng.choice(self._prices.symbols)
        side = rng.choice(("BUY", "SELL"))
        tick, lot = self._prices.units.tick[symbol], self._prices.units.lot[symbol]
        middle = self._prices.middle(symbol)
        away = rng.randint(1, _FAR) * 10 * tick
        ahead = away if rng.random() < _AGGRESSIVE else -away
        price = middle + (ahead if side == "BUY" else -ahead)
        quantity = rng.randint(1, 20) * lot * 100
        stp = rng.choice(("CANCEL_TAKER", "CANCEL_MAKER", "CANCEL_BOTH"))
        kind = rng.random()
        if kind < 0.70:
            return Want(symbol, side, price=price, quantity=quantity, stp=stp)
        if kind < 0.80:
            return Want(symbol, side, post_only=True, price=price, quantity=quantity, stp=stp)
        if kind < 0.88:
            return Want(symbol, side, time_in_force="IOC", price=price, quantity=quantity, stp=stp)
        if kind < 0.93:
            return Want(symbol, side, time_in_force="FOK", price=price, quantity=quantity, stp=stp)
        if kind < 0.96 or (kind < 0.98 and side == "SELL"):
            return Want(symbol, side, "MARKET", "IOC", quantity=quantity, stp=stp)
        if kind < 0.98:
            return Want(
                symbol, side, "MARKET", "IOC", quote_quantity=rng.randint(500, 90_000) * 10**6, stp=stp
            )
        if kind < 0.99:  # More than anybody has.
            return Want(symbol, side, price=price, quantity=10**13, stp=stp)
        return Want(symbol, side, price=price, quantity=lot, stp=stp)  # Perhaps too little to be taken.

    def _new(self, want: Want) -> Sent:
        sent = Sent(f"{self._prefix}-{next(self._numbers)}", want)
        self.account.sent[sent.client_order_id] = sent
        return sent

    async def _place(self, door: Door, sent: Sent) -> None:
        self._take(sent, await self._insist(sent.client_order_id, lambda: door.place(sent), [sent]))
        if isinstance(sent.answer, Accepted) and self._rng.random() < 0.03:
            order_id = sent.answer.order_id
            if not await self._insist(f"find {order_id}", lambda: door.find(order_id)):
                self._told.violations.add(f"{sent} was accepted and cannot be found")

    async def _batch(self, door: Door) -> None:
        sent = [self._new(self._want()) for _ in range(self._rng.randint(*_BATCH))]
        name = f"a batch from {sent[0].client_order_id}"
        for one, answer in zip(
            sent, await self._insist(name, lambda: door.place_all(sent), sent), strict=True
        ):
            self._take(one, answer)

    async def _twins(self, doors: Sequence[Door]) -> None:
        """The same order on two connections at the same time."""
        sent = self._new(self._want())

        async def one(door: Door) -> None:
            answer = await self._insist(sent.client_order_id, lambda: door.place(sent), [sent])
            self._take(sent, answer, twin=True)

        async with anyio.create_task_group() as group:
            for door in doors:
                group.start_soon(one, door)

    async def _repeat(self, door: Door) -> None:
        """An order that was answered before, once more: as it was, or another under its name."""
        known = self.account.sent.get(f"{self._prefix}-{self._rng.randint(1, len(self.account.sent) or 1)}")
        if known is None or not isinstance(known.answer, Accepted):
            return
        if self._rng.random() < 0.5:
            self.account.answered(known, await self._insist("a repeat", lambda: door.place(known)))
            return
        other = Sent(known.client_order_id, known.want._replace(quantity=10**9, quote_quantity=0))
        answer = await self._insist("a conflict", lambda: door.place(other))
        if isinstance(answer, Accepted) or answer.status != 409:
            self._told.violations.add(f"{known}, then {other}: answered {answer}")

    async def _cancel(self, door: Door, order_id: str) -> None:
        heard = self.account.heard.get(order_id)
        if heard is not None and heard.status in ENDED and self._rng.random() < 0.95:
            return
        if await self._insist(f"cancel {order_id}", lambda: door.cancel(order_id)):
            self.account.canceled.add(order_id)

    def _take(self, sent: Sent, answer: Accepted | Refused, *, twin: bool = False) -> None:
        self.account.answered(sent, answer, twin=twin)
        if not isinstance(answer, Accepted):
            return
        self._told.accepted_by_s[int(self._now_s())] += 1
        if sent.want.time_in_force == "GTC":
            self._resting.append(answer.order_id)

    async def _insist(self, name: str, ask: Callable[[], Awaitable[T]], again: Sequence[Sent] = ()) -> T:
        """Ask until there is an answer, with pauses that grow."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                answer = await ask()
            except AskAgain:
                self.waiting[name] = f"for {self.account.user_id}"
                for sent in again:
                    sent.asked_again += 1
            else:
                self.waiting.pop(name, None)
                return answer
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
