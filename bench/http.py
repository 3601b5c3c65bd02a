"""The load generator's HTTP: one keep-alive connection, one request at a time, few instructions.

No general client: it understands answers with a Content-Length, which all of the gateway's have. A
protocol of asyncio's own, on uvloop: the generator shares the two cores with what it measures.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import msgspec

OPEN_S = 20.0

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class _Wire(asyncio.Protocol):
    """Hands over each whole answer to the one who waits for it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance.

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(_HEAD_END)
        length = _content_length(head) if end else 0
        if end and len(rest) >= length and self._answer is not None and not self._answer.done():
            self._buffer = rest[length:]
            self._answer.set_result((int(head[9:12]), rest[:length]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the gateway closed the connection"))

    async def send(self, request: bytes) -> tuple[int, bytes]:
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


class Connection:
    def __init__(self, wire: _Wire, host: str) -> None:
        self._wire = wire
        self._host = host

    def prepare(self, method: str, path: str, token: str = "", body: object = None) -> bytes:
        """The bytes of a request, to be sent any number of times."""
        content = b"" if body is None else msgspec.json.encode(body)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(content)}"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if content:
            lines.append("Content-Type: application/json")
        return "\r\n".join(lines).encode() + _HEAD_END + content

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send it and wait; (status, body)."""
        return await self._wire.send(request)

    async def ask(self, method: str, path: str, token: str = "", body: object = None) -> object:
        """A request whose answer must be good; its JSON."""
        status, content = await self.send(self.prepare(method, path, token, body))
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {content.decode()}")
        return msgspec.json.decode(content)


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(_LENGTH):
            return int(line[len(_LENGTH) :])
    return 0


@asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[Connection]:
    transport, wire = await asyncio.get_running_loop().create_connection(_Wire, host, port)
    try:
        yield Connection(wire, f"{host}:{port}")
    finally:
        transport.close()


async def until_open(port: int) -> None:
    """Until somebody listens on this port of 127.0.0.1; raises TimeoutError after OPEN_S."""
    with anyio.fail_after(OPEN_S):
        while True:
            try:
                async with await anyio.connect_tcp("127.0.0.1", port):
                    return
            except OSError:
                await anyio.sleep(0.05)


async def join(connection: Connection) -> str:
    """A new test user; its token."""
    user = await connection.ask("POST", "/api/v1/test/join")
    assert isinstance(user, dict)
    return str(user["token"])
