"""The load's HTTP: one keep-alive connection, one request at a time, few instructions.

It knows three outcomes: a whole answer; NoAnswer, after which nobody knows whether the request was
carried out; and nothing else. Answers have a Content-Length, which all of the gateway's have.
"""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import msgspec
from anyio.abc import SocketStream

_END = b"\r\n\r\n"
_NOTHING = b""


class NoAnswer(Exception):
    """The connection failed, or the time was up, before a whole answer had come."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error_code(self) -> str:
        """The stable code of an error; empty when the body is none."""
        try:
            return str(self.json()["error"]["code"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return ""


class Client:
    """Connects when it has something to send, and again after every failure."""

    def __init__(self, port: int, token: str = "", *, within_s: float = 10.0) -> None:
        self._port = port
        self._fixed = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
        if token:
            self._fixed += f"Authorization: Bearer {token}\r\n".encode()
        self._within_s = within_s
        self._stream: SocketStream | None = None
        self._rest = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Raises NoAnswer."""
        content = _NOTHING if body is None else msgspec.json.encode(body)
        head = f"{method} {path}".encode() + self._fixed
        if content:
            head += b"Content-Type: application/json\r\n"
        request = head + f"Content-Length: {len(content)}".encode() + _END + content
        whole = False
        try:
            with anyio.fail_after(self._within_s):
                if self._stream is None:
                    self._stream, self._rest = await anyio.connect_tcp("127.0.0.1", self._port), b""
                await self._stream.send(request)
                answer = await self._receive(self._stream)
            whole = True
        except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise NoAnswer(f"{method} {path}: {type(error).__name__}") from None
        finally:
            if not whole:  # Canceled, too: what still comes would be taken for the next answer.
                await self._drop()
        if answer.headers.get("connection") == "close":
            await self._drop()
        return answer

    async def _receive(self, stream: SocketStream) -> Answer:
        data = self._rest
        while (end := data.find(_END)) < 0:
            data += await stream.receive()
        lines = data[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        begin = end + len(_END)
        length = begin + int(headers.get("content-length", "0"))
        while len(data) < length:
            data += await stream.receive()
        self._rest = data[length:]
        return Answer(int(lines[0][9:12]), headers, data[begin:length])

    async def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await anyio.aclose_forcefully(stream)
