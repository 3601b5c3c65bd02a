"""The exchange as a bot sees it: one object, one method for each thing that can be asked or done."""

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from ssl import SSLContext
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import msgspec

from exchange_client.batches import Batch, encode
from exchange_client.clock import Clock
from exchange_client.credentials import Credentials
from exchange_client.errors import NoAnswer, Refusal
from exchange_client.http import Answer, Http, TimeBody, read, target_of
from exchange_client.pages import Pages
from exchange_client.patience import Effect, Patience, persist
from exchange_client.stream import Stream, open_stream
from exchange_client.values import (
    Accepted,
    Account,
    BookSnapshot,
    Canceling,
    Fill,
    Interval,
    Joined,
    Kline,
    Market,
    NewOrder,
    Order,
    OrderStatus,
    Side,
    Ticker,
    Trade,
    time_text,
)

T = TypeVar("T")

PAGE = 500
REPEATED, SETTLED = 200, 201  # What an order's status tells.


class _OrdersPage(msgspec.Struct):
    orders: list[Order]
    cursor: str | None = None


class _FillsPage(msgspec.Struct):
    fills: list[Fill]
    cursor: str | None = None


class _Canceled(msgspec.Struct):
    canceling: int


class _Balances(msgspec.Struct):
    balances: list[Account]


class Exchange:
    """`async with Exchange(url, credentials) as exchange:`; without credentials, for public data only.

    Every method raises the errors of `exchange_client.errors`: a Refusal when the exchange says no, NoAnswer
    when it says nothing for `patience.deadline_s`. Methods may be called from many tasks at once.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        *,
        patience: Patience | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._tls = tls
        self._http = Http(self._url, credentials, tls)
        self._patience = patience or Patience()
        self._dice = random.Random()  # noqa: S311 - spreads pauses, guards nothing

    @property
    def clock(self) -> Clock:
        """The exchange's time, as signed requests have found it."""
        return self._http.clock

    async def __aenter__(self) -> Self:
        await self._http.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.client.__aexit__(kind, error, trace)

    # ---- orders -----------------------------------------------------------------------------------

    async def place(self, order: NewOrder) -> Accepted:
        """Place it, once, whatever is lost on the way: accepted means durable.

        After NoAnswer, placing the same object again tells what became of it. Does not promise that an order
        which was refused after a lost answer is not, much later, accepted from the first request after all.
        """
        answer = await self._send(Effect.NAMED, "POST", target_of("/orders"), encode(order))
        accepted = read(answer, Accepted)
        return msgspec.structs.replace(accepted, repeated=answer.status == REPEATED)

    async def place_and_settle(self, order: NewOrder, within_s: float = 2.0) -> Order:
        """As `place`, and the answer is what became of it: filled, resting, or ended.

        After `within_s`, at most half of `patience.attempt_s`, it is the order as it stands: ACCEPTED. A bot
        that follows the stream hears the same there, and sooner. To look at an order needs the right to READ.
        """
        wait_s = min(within_s, self._patience.attempt_s / 2)
        target = target_of("/orders", {"wait": "settled", "timeout_ms": max(1, round(wait_s * 1000))})
        answer = await self._send(Effect.NAMED, "POST", target, encode(order))
        if answer.status == SETTLED:
            return read(answer, Order)
        order_id = read(answer, Accepted).order_id
        try:
            return await self.order(order_id)
        except (NoAnswer, Refusal) as error:
            raise NoAnswer(f"order {order_id} is accepted; how it stands was not told: {error}") from error

    async def place_batch(self, orders: Sequence[NewOrder]) -> list[Accepted | Refusal]:
        """Place at most 1,000; one result for each, in their order. A refusal of one is a result, not raised.

        Those that the exchange was too busy for are sent again, as for `place`.
        """
        batch = Batch(orders)

        async def attempt() -> None:
            batch.take(await self._http.ask("POST", target_of("/orders/batch"), batch.ask()))

        try:
            await persist(attempt, Effect.NAMED, self._patience, self._dice)
        except (NoAnswer, Refusal):
            if batch.results() is None:
                raise
        return batch.results() or []

    async def cancel(self, order_id: str) -> Canceling:
        """Raises OrderNotLive when it has ended, OrderNotFound."""
        return read(await self._ask(Effect.NAMED, "DELETE", f"/orders/{order_id}"), Canceling)

    async def cancel_all(self, symbol: str | None = None) -> int:
        """Cancel every live order, of one market or of all; how many there were."""
        answer = await self._ask(Effect.NAMED, "DELETE", "/orders", symbol=symbol)
        return read(answer, _Canceled).canceling

    async def order(self, order_id: str) -> Order:
        """As it stands; raises OrderNotFound."""
        return read(await self._ask(Effect.READ, "GET", f"/orders/{order_id}"), Order)

    async def find_order(self, client_order_id: str) -> Order | None:
        """The order placed under this name, if there is one."""
        answer = await self._ask(Effect.READ, "GET", "/orders", client_order_id=client_order_id)
        return next(iter(read(answer, _OrdersPage).orders), None)

    def orders(
        self,
        *,
        symbol: str | None = None,
        status: OrderStatus | None = None,
        side: Side | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Pages[Order]:
        """`async for order in exchange.orders():` those created from `since` to before `until`, newest first.

        OPEN means every live order. Raises ValueError for a time without a zone.
        """
        wanted = {"symbol": symbol, "status": status, "side": side, **_span(since, until)}

        async def fetch(cursor: str) -> tuple[list[Order], str | None]:
            answer = await self._ask(Effect.READ, "GET", "/orders", **wanted, limit=PAGE, cursor=cursor)
            page = read(answer, _OrdersPage)
            return page.orders, page.cursor

        return Pages(fetch)

    def fills(
        self,
        *,
        symbol: str | None = None,
        order_id: str | None = None,
        side: Side | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Pages[Fill]:
        """`async for fill in exchange.fills():` newest first; the rest as for `orders`."""
        wanted = {"symbol": symbol, "order_id": order_id, "side": side, **_span(since, until)}

        async def fetch(cursor: str) -> tuple[list[Fill], str | None]:
            answer = await self._ask(Effect.READ, "GET", "/fills", **wanted, limit=PAGE, cursor=cursor)
            page = read(answer, _FillsPage)
            return page.fills, page.cursor

        return Pages(fetch)

    async def accounts(self) -> dict[str, Account]:
        """What the user has, by asset."""
        accounts = read(await self._ask(Effect.READ, "GET", "/accounts"), list[Account])
        return {account.asset: account for account in accounts}

    # ---- market data ------------------------------------------------------------------------------

    async def markets(self) -> dict[str, Market]:
        """By symbol."""
        markets = read(await self._ask(Effect.READ, "GET", "/markets"), list[Market])
        return {market.symbol: market for market in markets}

    async def orderbook(self, symbol: str, depth: int = 50) -> BookSnapshot:
        """The best `depth` levels of each side, at most 1,000."""
        answer = await self._ask(Effect.READ, "GET", "/orderbook", symbol=symbol, depth=depth)
        return read(answer, BookSnapshot)

    async def trades(self, symbol: str, limit: int = 100) -> list[Trade]:
        """The last ones, newest first, at most 1,000."""
        return read(await self._ask(Effect.READ, "GET", "/trades", symbol=symbol, limit=limit), list[Trade])

    async def klines(self, symbol: str, interval: Interval = "1m", limit: int = 500) -> list[Kline]:
        """Candles, oldest first, at most 1,000."""
        answer = await self._ask(Effect.READ, "GET", "/klines", symbol=symbol, interval=interval, limit=limit)
        return read(answer, list[Kline])

    async def ticker(self, symbol: str) -> Ticker:
        """The last 24 hours."""
        return read(await self._ask(Effect.READ, "GET", "/ticker", symbol=symbol), Ticker)

    async def time(self) -> datetime:
        """The exchange's clock."""
        return read(await self._ask(Effect.READ, "GET", "/time"), TimeBody).time

    # ---- local mode -------------------------------------------------------------------------------

    async def join(self) -> Joined:
        """A new user with test money. Sent again only while it certainly was not carried out."""
        return read(await self._ask(Effect.ONCE, "POST", "/test/join"), Joined)

    async def recharge(self) -> dict[str, Account]:
        """Fill up the caller's test money; what there is then, by asset."""
        answer = read(await self._ask(Effect.NAMED, "POST", "/test/recharge"), _Balances)
        return {account.asset: account for account in answer.balances}

    # ---- the stream -------------------------------------------------------------------------------

    def stream(self) -> AbstractAsyncContextManager[Stream]:
        """`async with exchange.stream() as stream:`, one WebSocket that comes back by itself."""
        return open_stream(self, self._http, self._url, self._tls, self._dice)

    # ---- the one way out --------------------------------------------------------------------------

    async def _ask(self, effect: Effect, method: str, path: str, **query: object) -> Answer:
        return await self._send(effect, method, target_of(path, query))

    async def _send(self, effect: Effect, method: str, target: str, body: bytes = b"") -> Answer:
        """What has no name of its own, as an order has one, gets one that is the same for all attempts."""
        headers: dict[str, str] = {}
        if effect is Effect.NAMED and not body:
            headers["Idempotency-Key"] = str(uuid4())
        return await persist(
            lambda: self._http.ask(method, target, body, headers), effect, self._patience, self._dice
        )


def _span(since: datetime | None, until: datetime | None) -> dict[str, str | None]:
    return {
        "from": None if since is None else time_text(since),
        "to": None if until is None else time_text(until),
    }
