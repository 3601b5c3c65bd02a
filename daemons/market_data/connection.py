"""One WebSocket client: reads its requests, keeps its subscriptions, sends what its outbox holds.

Two tasks, in a group of their own. The reader answers requests one after the other, so a client that
asks faster than it is answered waits in its own socket. The writer gathers what is queued into one
send, under a deadline: a peer that does not read is dropped, and nobody else notices. While it sleeps, what
public channels publish is written past it (see `fanout`).
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import anyio
import wsproto
import wsproto.events as ws
from anyio.abc import ByteStream

from common.core.errors import ExchangeError, Malformed, Unauthenticated
from common.identity.signed import Credentials
from common.socket_messages import (
    MAX_CHANNELS,
    Auth,
    Authenticated,
    Ping,
    Pong,
    Request,
    Subscribe,
    Subscribed,
    TooManySubscriptions,
    Unsubscribe,
    Unsubscribed,
)
from daemons.market_data import metrics, protocol
from daemons.market_data.allowance import Allowance
from daemons.market_data.outbox import SEND_BYTES, Outbox, Subscription
from daemons.market_data.protocol import ChannelName

READ_BYTES = 64 << 10
MAX_MESSAGE_BYTES = 64 << 10
SEND_S = 10.0
PING_S = 20.0
LINGER_S = 1.0
MESSAGES_PER_S, MESSAGES_BURST = 50, 250  # Of a client; each channel that it asks for counts as one more.

UNSUPPORTED, TOO_BIG, POLICY = 1003, 1009, 1008
TOLD_CODES = frozenset({1000, 1001, 1002, 1003, 1006, 1007, 1008, 1009, 1013})


class PublicSource(Protocol):
    """A public channel."""

    def join(self, outbox: Outbox) -> Subscription: ...
    def leave(self, subscription: Subscription) -> None: ...


class PrivateSeat(Protocol):
    """One connection's subscription to one private channel."""

    async def start(self) -> None:
        """Send the snapshot, then what came meanwhile; raises ExchangeError when it cannot be had."""

    def leave(self) -> None: ...


class Desk(Protocol):
    """What connections ask for; behind it stand the feed and order-service."""

    def public(self, name: ChannelName) -> PublicSource:
        """Raises UnknownSymbol."""

    def private(self, name: str, user_id: int, outbox: Outbox) -> PrivateSeat: ...

    async def sign_in(self, client: "Client", token: str) -> int:
        """The user's id, and a watch on the token while the client lives; raises ExchangeError."""

    async def sign_in_signed(self, client: "Client", credentials: Credentials) -> int:
        """The same for a key and its signature."""

    def sign_out(self, client: "Client") -> None: ...


@dataclass(slots=True, eq=False)
class _Public:
    source: PublicSource
    subscription: Subscription

    def leave(self) -> None:
        self.source.leave(self.subscription)


class Client:
    """A connection whose handshake is done."""

    def __init__(
        self,
        stream: ByteStream,
        connection: wsproto.WSConnection,
        first_bytes: bytes,
        desk: Desk,
        address: str,
    ) -> None:
        """`address`: the client's IP address, as far as it is known."""
        self.address = address
        self.outbox = Outbox()
        self.user_id: int | None = None
        self._stream = stream
        self._ws = connection
        self._first_bytes = first_bytes
        self._desk = desk
        self._held: dict[str, _Public | PrivateSeat] = {}
        self._message = ""
        self._allowance = Allowance(MESSAGES_PER_S, MESSAGES_BURST, anyio.current_time())
        self._pinged = False

    async def run(self) -> None:
        """Serve until either side ends it."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, group.cancel_scope)
                await self._write()
                group.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.outbox.close(1006, "broken")
        finally:
            self._desk.sign_out(self)
            self._leave_all()
            code = self.outbox.closed[0] if self.outbox.closed else 1006
            # A client may make up codes, and must not make up time series.
            metrics.closes.labels(str(code) if code in TOLD_CODES else "other").inc()

    def revoke(self, why: str) -> None:
        """The token is no longer valid: the private channels end, the public ones go on."""
        metrics.revoked.inc()
        self.user_id = None
        private = [name for name in self._held if protocol.parse_channel(name).private]
        for name in private:
            self._leave(name)
        self.outbox.reply(protocol.error_frame(Unauthenticated(why), None))
        if private:
            self.outbox.reply(protocol.reply_frame(Unsubscribed(private, None)))

    # ---- out ----------------------------------------------------------------------------------

    async def _write(self) -> None:
        while self.outbox.closed is None:
            parts = [self.outbox.take_rest(), *self.outbox.take_urgent()]
            items = self.outbox.take(SEND_BYTES)
            parts += [item.wire for item in items]
            chunk = b"".join(parts)
            if not chunk:
                await self.outbox.wait()
                continue
            if not await self._send(chunk):
                return
            metrics.frames_out.inc(len(items))
            metrics.bytes_out.inc(len(chunk))
            born_s = min((item.born_s for item in items if item.born_s), default=0.0)
            if born_s:
                metrics.publish_to_send.observe(anyio.current_time() - born_s)
        code, reason = self.outbox.closed
        if code != 1006:
            await self._send(self.outbox.take_rest() + protocol.close_frame(code, reason))
            await self._linger()

    async def _send(self, chunk: bytes) -> bool:
        """False when the peer did not read in time; its connection is then of no use any more."""
        with anyio.CancelScope(deadline=anyio.current_time() + SEND_S) as sending:
            self.outbox.on_close = sending
            await self._stream.send(chunk)
        self.outbox.on_close = None
        if sending.cancelled_caught:
            self.outbox.close(1013, "does not read")
            return False
        return True

    async def _linger(self) -> None:
        """Give the peer a moment to read the reason: closing at once could reset what it has not read."""
        with anyio.move_on_after(LINGER_S):
            with suppress(NotImplementedError):  # TLS has no end of one direction.
                await self._stream.send_eof()
            await anyio.sleep_forever()  # The reader ends the whole when the peer leaves.

    # ---- in -----------------------------------------------------------------------------------

    async def _read(self, whole: anyio.CancelScope) -> None:
        try:
            await self._read_all()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.outbox.close(1006, "left")
            whole.cancel()

    async def _read_all(self) -> None:
        await self._feed(self._first_bytes)
        while self.outbox.closed is None:
            with anyio.move_on_after(PING_S) as quiet:
                data = await self._stream.receive(READ_BYTES)
            if quiet.cancelled_caught:
                self._keep_alive()
                continue
            self._pinged = False
            await self._feed(data)
        while True:  # Until the peer leaves: what it still says is of no interest.
            await self._stream.receive(READ_BYTES)

    def _keep_alive(self) -> None:
        if self._pinged:
            self.outbox.close(POLICY, "no answer to ping")
        else:
            self._pinged = True
            self.outbox.urgent(protocol.ping_frame())

    def _spend(self, amount: int) -> bool:
        """False when the client has said too much of late: it is closed then."""
        if self._allowance.take(amount, anyio.current_time()):
            return True
        self.outbox.close(POLICY, "too many messages")
        return False

    async def _feed(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events():
            # A part of a frame that has not come whole is free; each frame counts, also an empty one.
            if getattr(event, "frame_finished", True) and not self._spend(1):
                return
            if self.outbox.closed is not None:
                return
            match event:
                case ws.TextMessage():
                    await self._on_text(event)
                case ws.BytesMessage():
                    self.outbox.close(UNSUPPORTED, "text only")
                case ws.Ping():
                    self.outbox.urgent(protocol.pong_frame(bytes(event.payload)))
                case ws.CloseConnection():
                    # 1005 and 1006 stand for "none given" and may not be sent (RFC 6455, 7.4.1).
                    code = int(event.code)
                    self.outbox.close(1000 if code in (1005, 1006) else code, event.reason or "")

    async def _on_text(self, event: ws.TextMessage) -> None:
        self._message += event.data
        if len(self._message) > MAX_MESSAGE_BYTES:
            self.outbox.close(TOO_BIG, "message too big")
        elif event.message_finished:
            text, self._message = self._message, ""
            await self._on_message(text)

    async def _on_message(self, text: str) -> None:
        try:
            request = protocol.parse_request(text)
        except Malformed as error:
            self.outbox.reply(protocol.error_frame(error, protocol.request_id(text)))
            return
        try:
            await self._answer(request)
        except ExchangeError as error:
            self.outbox.reply(protocol.error_frame(error, request.id))

    async def _answer(self, request: Request) -> None:
        match request:
            case Ping():
                self.outbox.reply(protocol.reply_frame(Pong(request.id)))
            case Auth():
                await self._sign_in(request)
            case Subscribe():
                await self._subscribe(request)
            case Unsubscribe():
                for name in request.channels:
                    protocol.parse_channel(name)
                for name in request.channels:
                    self._leave(name)
                self.outbox.reply(protocol.reply_frame(Unsubscribed(request.channels, request.id)))

    # ---- subscriptions --------------------------------------------------------------------------

    async def _sign_in(self, request: Auth) -> None:
        if request.api_key and not request.token:
            given = Credentials(request.api_key, str(request.timestamp), request.signature)
            user_id = await self._desk.sign_in_signed(self, given)
        elif request.token and not request.api_key:
            user_id = await self._desk.sign_in(self, request.token)
        else:
            raise Malformed(
                "send a token, or api_key, timestamp and signature", {"token": "this, or a signature"}
            )
        if self.user_id not in (None, user_id):
            for name in [name for name in self._held if protocol.parse_channel(name).private]:
                self._leave(name)
        self.user_id = user_id
        self.outbox.reply(protocol.reply_frame(Authenticated(str(user_id), request.id)))

    async def _subscribe(self, request: Subscribe) -> None:
        """All of the channels or, when one of them cannot be, none."""
        names = [(name, protocol.parse_channel(name)) for name in dict.fromkeys(request.channels)]
        wanted = [(name, parsed) for name, parsed in names if name not in self._held]
        if len(self._held) + len(wanted) > MAX_CHANNELS:
            raise TooManySubscriptions(details={"limit": str(MAX_CHANNELS)})
        if self.user_id is None and any(parsed.private for _, parsed in wanted):
            raise Unauthenticated("authenticate before subscribing to a private channel")
        sources = {name: self._desk.public(parsed) for name, parsed in wanted if not parsed.private}
        self.outbox.reply(protocol.reply_frame(Subscribed([name for name, _ in names], request.id)))
        for name, source in sources.items():
            self._held[name] = _Public(source, source.join(self.outbox))
        for name, parsed in wanted:
            if parsed.private:
                await self._take_seat(name, request)

    async def _take_seat(self, name: str, request: Subscribe) -> None:
        if self.user_id is None:  # Revoked while the seat before this one was taken.
            return
        seat = self._desk.private(name, self.user_id, self.outbox)
        self._held[name] = seat
        try:
            await seat.start()
        except ExchangeError as error:
            if self._held.get(name) is seat:
                self._leave(name)
            error.details["channel"] = name
            self.outbox.reply(protocol.error_frame(error, request.id))

    def _leave(self, name: str) -> None:
        held = self._held.pop(name, None)
        if held is not None:
            held.leave()

    def _leave_all(self) -> None:
        for name in list(self._held):
            self._leave(name)
