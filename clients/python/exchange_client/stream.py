"""One WebSocket that comes back by itself, and what is subscribed to over it.

    Stream        what a bot holds: subscriptions and books. It decides, and never waits.
    session       one connection: what is said and heard on it until it ends
    open_stream   the two together: connect, serve, wait a little, again

After every interruption each channel begins with a snapshot. A private one first tells what happened
meanwhile (see `missed`).
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext

import anyio

from exchange_client.book import OrderBook
from exchange_client.channel import Channel
from exchange_client.errors import ExchangeError
from exchange_client.events import PRIVATE
from exchange_client.http import Http
from exchange_client.missed import Asked, Fills, Orders
from exchange_client.patience import Patience
from exchange_client.session import Session
from exchange_client.subscription import Subscription
from exchange_client.websocket import WebSocketEnded, open_websocket

LIMIT = 10_000  # Events that may wait for a subscription's reader.
PAUSES = Patience(first_pause_s=0.2, longest_pause_s=5.0)


class Stream:
    """Subscriptions and books over one connection at a time. For one event loop, any number of tasks.

    `connections` counts how often it has connected, `interruption` is why the last connection ended.
    """

    def __init__(self, exchange: Asked, http: Http) -> None:
        self._http = http
        self._channels: dict[str, Channel] = {}
        self._session: Session | None = None
        self._subscriptions: dict[Subscription, None] = {}
        self._orders = Orders(exchange)
        self._fills = Fills(exchange)
        self.connections = 0
        self.interruption: Exception | None = None

    @property
    def connected(self) -> bool:
        return self._session is not None

    def subscribe(self, *channels: str, limit: int = LIMIT) -> Subscription:
        """Events of these channels (as API.md names them), each beginning with a snapshot.

        `limit` events may wait; one more, and reading raises SlowConsumer. Raises ValueError without a
        channel, or for a private one without credentials.
        """
        if not channels:
            raise ValueError("name a channel")
        if self._http.credentials is None and any(name in PRIVATE for name in channels):
            raise ValueError("private channels need credentials")
        subscription = Subscription(tuple(dict.fromkeys(channels)), limit, self._begin, self._leave)
        self._subscriptions[subscription] = None
        self._begin(subscription)
        return subscription

    def book(self, symbol: str) -> OrderBook:
        """The market's book, kept in step from now until the stream ends; `await book.ready()` first."""
        channel = self._channel(f"depth:{symbol}")
        if channel.book is None:
            channel.book = OrderBook(symbol)
            self._ask([channel])
        return channel.book

    # ---- subscriptions ----------------------------------------------------------------------------

    def _channel(self, name: str) -> Channel:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name)
        return channel

    def _begin(self, subscription: Subscription) -> None:
        """Its channels, from their next snapshots on."""
        channels = [self._channel(name) for name in subscription.channels]
        for channel in channels:
            channel.join(subscription)
        self._ask(channels)

    def _leave(self, subscription: Subscription) -> None:
        self._subscriptions.pop(subscription, None)
        for name in subscription.channels:
            channel = self._channels.get(name)
            if channel is None:
                continue
            channel.leave(subscription)
            if not channel.wanted:
                del self._channels[name]
                if self._session is not None:
                    self._session.unsubscribe(name)

    def _ask(self, channels: list[Channel]) -> None:
        if self._session is not None:
            self._session.subscribe(channels)

    def _close(self) -> None:
        for subscription in list(self._subscriptions):
            subscription.close()

    # ---- connections ------------------------------------------------------------------------------

    async def _run(self, url: str, tls: SSLContext | None, dice: random.Random) -> None:
        """For ever: connect, serve, wait, again. Pauses grow until a connection has worked for a while."""
        pauses = PAUSES.pauses(dice)
        while True:
            began_s = anyio.current_time()
            try:
                async with open_websocket(url, tls) as socket:
                    self.connections += 1
                    self._session = Session(socket, self._http, self._channels, self._orders, self._fills)
                    await self._session.run()
            except (WebSocketEnded, OSError, ExchangeError) as error:
                self.interruption = error
            finally:
                worked = self._session is not None and self._session.useful
                self._session = None
                for channel in self._channels.values():
                    channel.lose()
            if worked and anyio.current_time() - began_s > PAUSES.longest_pause_s:
                pauses = PAUSES.pauses(dice)
            await anyio.sleep(next(pauses))


@asynccontextmanager
async def open_stream(
    exchange: Asked, http: Http, url: str, tls: SSLContext | None, dice: random.Random
) -> AsyncIterator[Stream]:
    """The stream while the body runs, connected or connecting. What the body raises comes out as it is."""
    stream = Stream(exchange, http)
    address = "ws" + url.removeprefix("http") + "/ws"
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(stream._run, address, tls, dice)
            try:
                yield stream
            finally:
                stream._close()
                group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) != 1:
            raise
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
