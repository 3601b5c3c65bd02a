"""Small local servers whose every word is the test's: HTTP answers in a row, and a WebSocket."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import wsproto
import wsproto.events as ws
from anyio.abc import SocketAttribute, SocketStream

Json = dict[str, Any]
GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@asynccontextmanager
async def serving(handle: Callable[[SocketStream], Awaitable[None]]) -> AsyncIterator[int]:
    """Each connection in a task of its own while the body runs; gives the port."""

    async def one(stream: SocketStream) -> None:
        async with stream:
            with suppress(*GONE):
                await handle(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as group,
    ):
        group.start_soon(listener.serve, one)
        yield listener.extra(SocketAttribute.local_port)
        group.cancel_scope.cancel()


# ---- HTTP -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, body: object, **headers: str) -> bytes:
    """`headers` with underscores for hyphens."""
    content = msgspec.json.encode(body)
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def refused(status: int, code: str, **headers: str) -> bytes:
    return answer(status, {"error": {"code": code, "message": "no", "details": {}}}, **headers)


DROP = b""  # The connection is closed in place of an answer.


@dataclass
class Scripted:
    """Answers each request with the next of `answers`, by path when it is a dictionary's."""

    answers: deque[bytes] = field(default_factory=deque)
    by_path: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    async def handle(self, stream: SocketStream) -> None:
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                rest += await stream.receive()
            head, _, rest = rest.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines)
            length = int(headers.get("content-length", "0"))
            while len(rest) < length:
                rest += await stream.receive()
            method, target, _ = first.split()
            self.requests.append(Request(method, target, headers, rest[:length]))
            rest = rest[length:]
            special = self.by_path.get(target)
            reply = special() if special else self.answers.popleft()
            if reply == DROP:
                return
            await stream.send(reply)


@asynccontextmanager
async def scripted_http(*answers: bytes) -> AsyncIterator[Scripted]:
    script = Scripted(deque(answers))
    async with serving(script.handle) as port:
        script.url = f"http://127.0.0.1:{port}"
        yield script


# ---- WebSocket --------------------------------------------------------------------------------------


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._ws = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        self._heard: deque[Json] = deque()

    async def accept(self) -> None:
        await self._until(ws.Request)
        await self._stream.send(self._ws.send(ws.AcceptConnection()))

    async def hear(self) -> Json:
        """The client's next message."""
        if not self._heard:
            await self._until(ws.TextMessage)
        return self._heard.popleft()

    async def ping(self) -> None:
        """Until the client has answered: it reads what it is told by then."""
        await self.frame(ws.Ping())
        await self._until(ws.Pong)

    async def say(self, **message: object) -> None:
        await self._stream.send(self._ws.send(ws.TextMessage(msgspec.json.encode(message).decode())))

    async def tell(self, channel: str, data: object, sequence: int, previous: int | None = None) -> None:
        """A data message; without `previous` a snapshot."""
        kind = "snapshot" if previous is None else "update"
        await self.say(channel=channel, type=kind, sequence=sequence, previous=previous or 0, data=data)

    async def refuse(self, request: Json, code: str, **details: str) -> None:
        await self.say(
            op="error", error={"code": code, "message": "no", "details": details}, id=request.get("id")
        )

    async def frame(self, event: ws.Event) -> None:
        await self._stream.send(self._ws.send(event))

    async def gone(self) -> None:
        """Until the client has left; what it still says is passed over."""
        with suppress(*GONE):
            while True:
                await self.hear()

    async def _until(self, kind: type[ws.Event]) -> None:
        """Until the client sends such a frame; what it says until then is kept for `hear`."""
        while True:
            for event in self._ws.events():
                if isinstance(event, ws.TextMessage):
                    self._heard.append(msgspec.json.decode(event.data))
                if isinstance(event, ws.CloseConnection):
                    raise anyio.EndOfStream
                if isinstance(event, kind):
                    return
            self._ws.receive_data(await self._stream.receive())


class Door:
    """Connections in the order in which clients come; a closed `Peer` ends with its block."""

    def __init__(self) -> None:
        self.url = ""
        self._send, self._receive = anyio.create_memory_object_stream[tuple[Peer, anyio.Event]](8)

    async def handle(self, stream: SocketStream) -> None:
        peer, over = Peer(stream), anyio.Event()
        await peer.accept()
        await self._send.send((peer, over))
        await over.wait()

    @asynccontextmanager
    async def next(self) -> AsyncIterator[Peer]:
        """The next client, once it listens; leaving drops it without a word."""
        with anyio.fail_after(10):
            peer, over = await self._receive.receive()
            await peer.ping()
        try:
            yield peer
        finally:
            over.set()


@asynccontextmanager
async def scripted_websocket() -> AsyncIterator[Door]:
    door = Door()
    async with serving(door.handle) as port:
        door.url = f"http://127.0.0.1:{port}"
        with door._send, door._receive:
            yield door
