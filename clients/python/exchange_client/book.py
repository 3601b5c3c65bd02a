"""A local order book: a snapshot, then changed levels. It is either exactly the exchange's, or says that it
is not: nothing can be read from it while a snapshot is awaited. No I/O; `changed` waits for one event.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice

import anyio

from exchange_client.errors import ExchangeError, OutOfSync
from exchange_client.values import Level


class _Levels:
    """One side: prices ascending, and the quantity at each."""

    def __init__(self) -> None:
        self._prices: list[Decimal] = []
        self._quantities: dict[Decimal, Decimal] = {}

    def set(self, levels: Sequence[Level], *, replace: bool) -> None:
        if replace:
            told = {level.price: level.quantity for level in levels}
            self._quantities = {price: quantity for price, quantity in told.items() if quantity}
            self._prices = sorted(self._quantities)
            return
        for price, quantity in ((level.price, level.quantity) for level in levels):
            if not quantity:
                if self._quantities.pop(price, None) is not None:
                    del self._prices[bisect_left(self._prices, price)]
                continue
            if price not in self._quantities:
                insort(self._prices, price)
            self._quantities[price] = quantity

    def __len__(self) -> int:
        return len(self._prices)

    def __iter__(self) -> Iterator[Level]:
        return (Level(price, self._quantities[price]) for price in self._prices)

    def __reversed__(self) -> Iterator[Level]:
        return (Level(price, self._quantities[price]) for price in reversed(self._prices))


class OrderBook:
    """One market's book. `sequence` is that of the last message in it, `synced` whether it can be read."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.sequence = 0
        self.version = 0  # Grows with every change; the begin of an interruption is one, too.
        self.synced = False
        self._bids = _Levels()
        self._asks = _Levels()
        self._change = anyio.Event()
        self._failure: ExchangeError | None = None

    # ---- reading --------------------------------------------------------------------------------

    def bids(self, depth: int | None = None) -> list[Level]:
        """Best first; raises OutOfSync."""
        self._check()
        return list(islice(reversed(self._bids), depth))

    def asks(self, depth: int | None = None) -> list[Level]:
        """Best first; raises OutOfSync."""
        self._check()
        return list(islice(iter(self._asks), depth))

    @property
    def best_bid(self) -> Level | None:
        """None: nobody buys. Raises OutOfSync."""
        return next(iter(self.bids(1)), None)

    @property
    def best_ask(self) -> Level | None:
        """None: nobody sells. Raises OutOfSync."""
        return next(iter(self.asks(1)), None)

    @property
    def mid(self) -> Decimal | None:
        """Half way between the best; None while a side is empty. Raises OutOfSync."""
        bid, ask = self.best_bid, self.best_ask
        return (bid.price + ask.price) / 2 if bid and ask else None

    async def ready(self) -> None:
        """Until it can be read; raises the Refusal when there is no such book."""
        seen = self.version
        while not self.synced:
            seen = await self.changed(seen)

    async def changed(self, seen: int) -> int:
        """Until it is another than version `seen`; gives the present one. Raises as `ready`.

        `seen = await book.changed(seen)`, from 0 on: no change is missed, however long the loop takes.
        """
        while self._failure is None and self.version == seen:
            await self._change.wait()
        if self._failure is not None:
            raise self._failure
        return self.version

    # ---- being told -----------------------------------------------------------------------------

    def apply(self, sequence: int, bids: Sequence[Level], asks: Sequence[Level], *, snapshot: bool) -> None:
        """A message of depth:SYMBOL. An update must follow the last message; who calls sees to that."""
        assert snapshot or self.synced
        self._bids.set(bids, replace=snapshot)
        self._asks.set(asks, replace=snapshot)
        self.sequence, self.synced = sequence, True
        self._tell()

    def lose(self) -> None:
        """Something may have been missed: nothing can be read until the next snapshot."""
        if self.synced:
            self.synced = False
            self._tell()

    def fail(self, error: ExchangeError) -> None:
        """There will be no book."""
        self._failure, self.synced = error, False
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        change, self._change = self._change, anyio.Event()
        change.set()

    def _check(self) -> None:
        if not self.synced:
            raise OutOfSync(f"the book of {self.symbol} waits for its snapshot")
