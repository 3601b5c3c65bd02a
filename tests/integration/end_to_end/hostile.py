"""Clients who mean harm. Each attacks again and again until it is cancelled, and notes what it hears."""

import json
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import SocketStream

from tests.integration.market_data.test_hostile import masked, upgrade

Heard = Counter[str]
Attack = Callable[[int, str, Heard], Coroutine[Any, Any, None]]  # Port, token, what was heard.

PAUSE_S = 0.05  # Between two attempts of one attacker: they share the machine with their victims.
_GONE = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError, OSError)


async def slow_loris(port: int, token: str, heard: Heard) -> None:
    """A byte of the headers, or of a large body, now and then, on many connections."""
    async with anyio.create_task_group() as group:
        head, body = b"GET /api/v1/time HTTP/1.1\r\nX-Padding: ", _post(token, b"Content-Length: 500000")
        group.start_soon(_many, 100, _trickle, port, head, heard)
        group.start_soon(_many, 50, _trickle, port, body, heard)


async def large_heads(port: int, token: str, heard: Heard) -> None:
    """Headers without an end."""
    start, more = b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-Many: abc\r\n" * 500
    await _many(4, _again_and_again, port, start, more, 0.01, heard)


async def endless_bodies(port: int, token: str, heard: Heard) -> None:
    """Chunks without an end."""
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    await _many(4, _again_and_again, port, _post(token, b"Transfer-Encoding: chunked"), chunk, 0.01, heard)


async def websocket_flood(port: int, token: str, heard: Heard) -> None:
    """Thousands of messages at once."""
    await _many(3, _again_and_again, port, upgrade(), masked(b'{"op": "ping"}') * 500, 0.01, heard)


async def subscription_bomb(port: int, token: str, heard: Heard) -> None:
    """Snapshots again and again: everything is subscribed to and left, as fast as it goes."""
    names = [f"{kind}:{market}" for kind in ("depth", "trades") for market in ("BTC-USD", "ETH-USD")]
    both = [masked(json.dumps({"op": op, "channels": names}).encode()) for op in ("subscribe", "unsubscribe")]
    await _many(3, _again_and_again, port, upgrade(), b"".join(both) * 100, 0.01, heard)


def _post(token: str, length: bytes) -> bytes:
    head = b"POST /api/v1/orders HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n"
    return head % (token.encode(), length)


async def _many(count: int, attack: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(attack, *arguments)


async def _trickle(port: int, start: bytes, heard: Heard) -> None:
    """Begin, and go on a byte at a time."""
    await _again_and_again(port, start, b"x", 0.2, heard)


async def _again_and_again(port: int, start: bytes, more: bytes, pause_s: float, heard: Heard) -> None:
    """Send `start`, then `more` for ever; when the connection has ended, begin again."""
    while True:
        with suppress(*_GONE):
            async with (
                await anyio.connect_tcp("127.0.0.1", port) as stream,
                anyio.create_task_group() as group,
            ):
                group.start_soon(_listen, stream, heard, group.cancel_scope)
                with suppress(*_GONE):
                    await stream.send(start)
                    while True:
                        await anyio.sleep(pause_s)
                        await stream.send(more)
        await anyio.sleep(PAUSE_S)


async def _listen(stream: SocketStream, heard: Heard, attempt: anyio.CancelScope) -> None:
    """What the other side says first; an attempt ends when it has nothing more to say."""
    with suppress(*_GONE):
        said = await stream.receive()
        heard[_name(said)] += 1
        while True:
            said = await stream.receive()
            heard[_name(said)] += 1
    attempt.cancel()


def _name(said: bytes) -> str:
    """The status of an answer, or the code of a WebSocket's close."""
    if said.startswith(b"HTTP/1.1 "):
        return said[9:12].decode()
    close = said.rfind(b"\x88")
    return str(int.from_bytes(said[close + 2 : close + 4], "big")) if close >= 0 else "frames"
