"""An HTTP/1.1 client that hides nothing: it says whether an answer came, and how a connection ended.

One connection, one request at a time. Libraries repeat requests and mix up a connection that was closed
in peace with one that was cut; a test of restarts must know which it was.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


class ClosedInPeace(Exception):
    """The server ended a connection that had been idle; it has not looked at the request."""


class CutOff(Exception):
    """No answer, or half of one: what became of the request is not known."""


class Client:
    """Opens its connection when it needs one."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._answered = 0  # On this connection.

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Raises ClosedInPeace and CutOff."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._exchange(head.encode() + content)
        except TimeoutError:
            self.close()
            raise CutOff(f"no answer within {ANSWER_S:g} s") from None
        except (OSError, asyncio.IncompleteReadError, ClosedInPeace) as error:
            answered = self._answered
            self.close()
            in_peace = isinstance(error, ClosedInPeace) and answered > 0
            raise error if in_peace else CutOff(f"{error!r} after {answered} answers") from None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams, self._answered = None, 0

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        first = await reader.readline()
        if not first:
            raise ClosedInPeace
        headers: dict[str, str] = {}
        while (line := await _line(reader)) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers["content-length"]))
        self._answered += 1
        if headers.get("connection") == "close":
            self.close()
        return Answer(int(first.split()[1]), headers, json.loads(body))


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    if not line.endswith(b"\r\n"):
        raise asyncio.IncompleteReadError(line, None)
    return line[:-2].decode("latin-1")
