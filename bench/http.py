"""The load generator's HTTP: one keep-alive connection, one request at a time, few instructions.

No general client: it understands answers with a Content-Length, which all of the gateway's have.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.abc import SocketStream

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Connection:
    def __init__(self, stream: SocketStream, host: str) -> None:
        self._stream = stream
        self._host = host
        self._buffer = b""

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
        await self._stream.send(request)
        while _HEAD_END not in self._buffer:
            self._buffer += await self._stream.receive()
        head, _, rest = self._buffer.partition(_HEAD_END)
        length = _content_length(head)
        while len(rest) < length:
            rest += await self._stream.receive()
        self._buffer = rest[length:]
        return int(head[9:12]), rest[:length]

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
    async with await anyio.connect_tcp(host, port) as stream:
        yield Connection(stream, f"{host}:{port}")


async def join(connection: Connection) -> str:
    """A new test user; its token."""
    user = await connection.ask("POST", "/api/v1/test/join")
    assert isinstance(user, dict)
    return str(user["token"])
