"""A WebSocket client: wsproto over an anyio stream. Text messages, pings answered, sizes bounded.

`receive` is for one task; `send` may be called from several.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from urllib.parse import urlsplit

import anyio
import wsproto
import wsproto.events as ws
from anyio.abc import ByteStream
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

CONNECT_S = 5.0
NO_CODE, TOO_BIG = 1006, 1009  # RFC 6455, 7.4.1.
GOODBYE_S = 0.5
MAX_MESSAGE_CHARACTERS = 32 << 20  # The whole book of a market is one message.


class WebSocketEnded(Exception):
    """The connection is over; `code` and `reason` as the peer gave them, 1006 when it gave none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class WebSocket:
    """An open connection; `open_websocket` is the only way to get one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._sending = anyio.Lock()
        self._ready: deque[str] = deque()
        self._parts: list[str] = []
        self._size = 0

    async def send(self, text: str) -> None:
        """Raises WebSocketEnded."""
        await self._send(ws.TextMessage(data=text))

    async def receive(self) -> str:
        """The next message; raises WebSocketEnded."""
        while not self._ready:
            await self._read()
            for event in self._ws.events():
                await self._take(event)
        return self._ready.popleft()

    async def shake_hands(self, host: str, path: str) -> None:
        """Raises WebSocketEnded when the server does not want to."""
        await self._send(ws.Request(host=host, target=path))
        while True:
            await self._read()
            for event in self._ws.events():  # What comes behind the answer stays for `receive`.
                if isinstance(event, ws.AcceptConnection):
                    return
                if isinstance(event, ws.RejectConnection):
                    raise WebSocketEnded(NO_CODE, f"refused with HTTP {event.status_code}")

    async def say_goodbye(self) -> None:
        """Tell the peer, if it still listens."""
        with suppress(WebSocketEnded):
            await self._send(ws.CloseConnection(code=1000))

    async def _take(self, event: ws.Event) -> None:
        match event:
            case ws.TextMessage():
                self._parts.append(event.data)
                self._size += len(event.data)
                if self._size > MAX_MESSAGE_CHARACTERS:
                    raise WebSocketEnded(TOO_BIG, "the message is too large")
                if event.message_finished:
                    self._ready.append("".join(self._parts))
                    self._parts, self._size = [], 0
            case ws.Ping():
                await self._send(event.response())
            case ws.CloseConnection():
                with suppress(WebSocketEnded):
                    await self._send(event.response())
                raise WebSocketEnded(int(event.code), event.reason or "")

    async def _read(self) -> None:
        try:
            data: bytes | None = await self._stream.receive()
        except anyio.EndOfStream:
            data = None
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise WebSocketEnded(NO_CODE, "broken") from error
        try:
            self._ws.receive_data(data)
        except RemoteProtocolError as error:
            raise WebSocketEnded(NO_CODE, str(error)) from error

    async def _send(self, event: ws.Event) -> None:
        async with self._sending:
            try:
                await self._stream.send(self._ws.send(event))
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, LocalProtocolError) as error:
                raise WebSocketEnded(NO_CODE, "broken") from error


@asynccontextmanager
async def open_websocket(url: str, tls: SSLContext | None = None) -> AsyncIterator[WebSocket]:
    """Connect to a ws:// or wss:// URL; raises OSError or WebSocketEnded when that takes CONNECT_S."""
    parts = urlsplit(url)
    secure = parts.scheme == "wss"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        with anyio.fail_after(CONNECT_S):
            stream: ByteStream
            if secure:
                stream = await anyio.connect_tcp(
                    host, port, tls=True, ssl_context=tls, tls_standard_compatible=False
                )
            else:
                stream = await anyio.connect_tcp(host, port)
    except TimeoutError:
        raise WebSocketEnded(NO_CODE, "no connection in time") from None
    try:
        socket = WebSocket(stream)
        with anyio.move_on_after(CONNECT_S) as shaking:
            await socket.shake_hands(parts.netloc, parts.path or "/")
        if shaking.cancelled_caught:
            raise WebSocketEnded(NO_CODE, "no handshake in time")
        yield socket
        with anyio.move_on_after(GOODBYE_S):
            await socket.say_goodbye()
    finally:
        await anyio.aclose_forcefully(stream)
