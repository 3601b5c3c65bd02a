"""One connection of a stream: what is said and heard on it until it ends.

Four tasks: the reader; a writer, which sends what the others have put into `_outbox`; one that signs in; one
that asks "are you there?" when it is quiet. Whoever finds that the connection is over ends all four.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
import msgspec
from anyio.abc import TaskGroup

from exchange_client.channel import Channel
from exchange_client.credentials import SIGN_AGAIN
from exchange_client.errors import (
    ExchangeError,
    NoAnswer,
    ProtocolError,
    RateLimited,
    Refusal,
    Unavailable,
    refusal,
)
from exchange_client.events import Event, FillsEvent, Message, OrdersEvent, read_event, read_message
from exchange_client.http import ErrorBody, Http
from exchange_client.missed import Fills, Orders
from exchange_client.websocket import NO_CODE, WebSocket, WebSocketEnded

PING_S = 10.0  # So often it is asked.
QUIET_S = 25.0  # Without a word for so long, the connection counts as dead.
LATER_S = 1.0
CLOCK_S = 5.0
MOST_WAITING = 10_000  # Events of a channel that catches up; past that it begins again.
MOST_SIGNATURES = 5  # That are tried on one connection, when it seems to be a matter of time.
LATER = (Unavailable, RateLimited)  # A part is away, or there is no room now: asked for again.


class Session:
    """`run` serves it; the rest returns at once."""

    def __init__(
        self,
        socket: WebSocket,
        http: Http,
        channels: dict[str, Channel],
        orders: Orders,
        fills: Fills,
    ) -> None:
        self._group: TaskGroup
        self._socket = socket
        self._http = http
        self._channels = channels
        self._orders = orders
        self._fills = fills
        self._outbox: deque[dict[str, object]] = deque()
        self._filled = anyio.Event()
        self._asked: dict[int | str | None, tuple[str, ...]] = {}  # Subscriptions by the id of the request.
        self._on: set[str] = set()  # Asked for, and not refused.
        self._last_id = 0
        self._sign_in_wanted = anyio.Event()
        self._sign_in_id = 0  # Of the sign-in under way; 0: there is none.
        self._signed_in = False
        self._signed_again = 0
        self._heard_s = anyio.current_time()
        self._catching_up: dict[Channel, deque[Event]] = {}
        self._end: Exception | None = None
        self.useful = False  # It has brought a snapshot.

    async def run(self) -> None:
        """Until it ends; raises WebSocketEnded or an ExchangeError."""
        async with anyio.create_task_group() as group:
            self._group = group
            for work in (self._write, self._keep_alive, self._sign_in):
                group.start_soon(self._until_over, work)
            self.subscribe(list(self._channels.values()))
            await self._until_over(self._read)
        assert self._end is not None
        raise self._end

    async def _until_over(self, work: Callable[[], Awaitable[None]]) -> None:
        """What ends one of the tasks ends them all, and is kept: a group would wrap it."""
        try:
            await work()
        except (WebSocketEnded, ExchangeError) as error:
            self._end = self._end or error
            self._group.cancel_scope.cancel()

    # ---- out ----------------------------------------------------------------------------------------

    def subscribe(self, channels: Sequence[Channel]) -> None:
        """Ask for a snapshot of each, and what follows. One that is on already begins again."""
        again = [channel.name for channel in channels if channel.name in self._on]
        for channel in channels:
            channel.lose()
        if again:
            self._say(op="unsubscribe", channels=again)
        self._request([channel.name for channel in channels if not channel.private])
        private = [channel.name for channel in channels if channel.private]
        if self._signed_in:
            self._request(private)
        elif private:
            self._sign_in_wanted.set()

    def unsubscribe(self, name: str) -> None:
        """Its last listener has left."""
        if name in self._on:
            self._on.discard(name)
            self._say(op="unsubscribe", channels=[name])

    def _request(self, names: Sequence[str]) -> None:
        if names:
            self._on.update(names)
            self._asked[self._say(op="subscribe", channels=list(names))] = tuple(names)

    def _say(self, **message: object) -> int:
        """Send it soon; gives its id."""
        self._last_id += 1
        self._outbox.append(message | {"id": self._last_id})
        self._filled.set()
        return self._last_id

    async def _write(self) -> None:
        while True:
            while self._outbox:
                await self._socket.send(msgspec.json.encode(self._outbox.popleft()).decode())
            self._filled = anyio.Event()
            await self._filled.wait()

    async def _keep_alive(self) -> None:
        while True:
            await anyio.sleep(PING_S)
            quiet_s = anyio.current_time() - self._heard_s
            if quiet_s > QUIET_S:
                raise WebSocketEnded(NO_CODE, f"nothing was heard for {quiet_s:.0f} s")
            if quiet_s >= PING_S / 2:
                self._say(op="ping")

    async def _sign_in(self) -> None:
        """Whenever it is wanted. A signature needs the exchange's time."""
        while True:
            await self._sign_in_wanted.wait()
            self._sign_in_wanted = anyio.Event()
            credentials = self._http.credentials
            if credentials is None or self._signed_in or self._sign_in_id:
                continue
            if credentials.needs_time:
                await self._ask_the_time()
            stamp_ms = self._http.clock.stamp_ms()
            self._sign_in_id = self._say(op="auth", **credentials.sign_in(stamp_ms))

    async def _ask_the_time(self) -> None:
        """Over HTTP, which has a connection of its own: raises NoAnswer when that one is dead."""
        with anyio.move_on_after(CLOCK_S):
            return await self._http.set_clock()
        raise NoAnswer(f"the exchange did not tell its time within {CLOCK_S:.0f} s")

    # ---- in -----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            text = await self._socket.receive()
            self._heard_s = anyio.current_time()
            message = read_message(text)
            if message.channel:
                self._take(message)
            elif message.op == "error":
                self._refused(message)
            elif message.op == "authenticated":
                self._signed_in, self._sign_in_id = True, 0
                self._request([name for name, channel in self._channels.items() if channel.private])
            elif message.op == "subscribed":
                self._asked.pop(message.id, None)

    def _take(self, message: Message) -> None:
        channel = self._channels.get(message.channel)
        if channel is None or message.channel not in self._on:
            return  # Left a moment ago.
        event = read_event(message)
        if not channel.accept(event):
            if channel.sequence is not None:  # A gap; without a sequence, its snapshot is on the way.
                self.subscribe([channel])
            return
        self.useful = self.useful or event.snapshot
        waiting = self._catching_up.get(channel)
        if waiting is None and event.snapshot and isinstance(event, OrdersEvent | FillsEvent):
            self._catching_up[channel] = deque([event])
            self._group.start_soon(self._until_over, partial(self._catch_up, channel))
        elif waiting is None:
            self._note(event)
            channel.tell(event)
        elif len(waiting) < MOST_WAITING:
            waiting.append(event)
        else:
            waiting.clear()
            self.subscribe([channel])

    async def _catch_up(self, channel: Channel) -> None:
        """Ask over HTTP for what was missed. The stream goes on; what this channel brings meanwhile waits."""
        waiting = self._catching_up[channel]
        try:
            while waiting:
                event = waiting.popleft()
                if event.snapshot:
                    channel.tell(event, await self._missed(event))
                else:
                    self._note(event)
                    channel.tell(event)
        finally:
            del self._catching_up[channel]

    async def _missed(self, event: Event) -> list[Event] | None:
        """For those who knew the state before a snapshot of a private channel; None: the snapshot itself."""
        match event:
            case OrdersEvent(snapshot=True):
                return await self._orders.take_snapshot(event)
            case FillsEvent(snapshot=True):
                return await self._fills.take_snapshot(event)
        return None

    def _note(self, event: Event) -> None:
        """An update, for the next time that something is missed."""
        match event:
            case OrdersEvent():
                self._orders.take(event)
            case FillsEvent():
                self._fills.take(event)

    # ---- refusals -----------------------------------------------------------------------------------

    def _refused(self, message: Message) -> None:
        signing_in = message.id == self._sign_in_id != 0
        error = _refusal_in(message, 401 if signing_in else 0)
        if signing_in:
            self._sign_in_id = 0
            self._not_signed_in(error)
            return
        names = self._asked.pop(message.id, ())
        if names:
            self._not_subscribed(names, error)
        elif "channel" in error.details:  # Of a request that was granted, one could not be begun.
            self._not_begun([error.details["channel"]], error)
        elif message.id is None and self._signed_in and not isinstance(error, LATER):
            self._signed_out()  # Nothing was asked: it is the identity that has ended.

    def _not_signed_in(self, error: Refusal) -> None:
        """Try later, or those who wait for private channels are told."""
        again = error.code in SIGN_AGAIN and self._signed_again < MOST_SIGNATURES
        if again or isinstance(error, LATER):
            self._signed_again += again
            self._group.start_soon(self._sign_in_later)
            return
        for channel in [channel for channel in self._channels.values() if channel.private]:
            self._give_up(channel, error)

    def _signed_out(self) -> None:
        """The exchange has ended the identity: the private channels are off, and it is tried anew."""
        self._signed_in = False
        for name, channel in self._channels.items():
            if channel.private:
                self._on.discard(name)
                channel.lose()
                self._sign_in_wanted.set()

    def _not_subscribed(self, names: Sequence[str], error: Refusal) -> None:
        """None of them is on, and perhaps for one alone: the others are asked for again."""
        blamed = [name for name in names if _is_blamed(name, error)]
        if len(names) == 1 or isinstance(error, LATER):
            self._not_begun(names, error)
        elif blamed:
            self._not_begun(blamed, error)
            self._request([name for name in names if name not in blamed and name in self._channels])
        else:
            for name in names:
                self._request([name])

    def _not_begun(self, names: Sequence[str], error: Refusal) -> None:
        """What is away is asked for later; of the rest, those who listen are told."""
        self._on.difference_update(names)
        if isinstance(error, LATER):
            self._group.start_soon(self._request_later, names)
            return
        for name in names:
            if (channel := self._channels.get(name)) is not None:
                self._give_up(channel, error)

    def _give_up(self, channel: Channel, error: Refusal) -> None:
        if (
            self._channels.pop(channel.name, None) is not None
        ):  # Else it went with another of its subscription.
            channel.fail(error)

    async def _sign_in_later(self) -> None:
        await anyio.sleep(LATER_S)
        self._sign_in_wanted.set()

    async def _request_later(self, names: Sequence[str]) -> None:
        await anyio.sleep(LATER_S)
        self.subscribe([channel for name in names if (channel := self._channels.get(name)) is not None])


def _is_blamed(name: str, error: Refusal) -> bool:
    """Whether the details name this channel, or its market."""
    details = error.details
    return details.get("channel") == name or details.get("symbol") in name.split(":")[1:]


def _refusal_in(message: Message, status: int) -> Refusal:
    """`status` is what a code means that is not known here."""
    try:
        error = msgspec.json.decode(message.error, type=ErrorBody)
    except msgspec.DecodeError as wrong:
        raise ProtocolError(f"an error cannot be read: {wrong}") from wrong
    return refusal(error.code, error.message, error.details, status=status)
