"""Looking at a request's headers without taking them from the socket.

MSG_PEEK returns at once as soon as one byte is there, so a loop of peeks over half a request would spin.
Here the kernel is told to wake us only when there is more than we have seen: SO_RCVLOWAT, which
Linux's epoll and BSD's kqueue respect. A half-closed connection is always readable; it is recognised by
its TCP state. Anything else that wakes us for nothing (memory pressure may) costs a short, growing pause.
"""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass

import trio

HEAD_LIMIT_BYTES = 16 * 1024
_PAUSE_S, _MOST_PAUSE_S = 0.005, 0.5
_TCP_ESTABLISHED = 1

_HEAD_END = re.compile(rb"\r?\n\r?\n")  # h11 accepts bare line feeds, so this must see them too.
_REQUEST_LINE = re.compile(rb"GET (/[^ ?#]*)(?:\?[^ ]*)? HTTP/1\.1\r?\n")
_UPGRADE = re.compile(rb"\nupgrade:[ \t]*([^\r\n]*)", re.IGNORECASE)
_FORWARDED = re.compile(rb"\n(x-forwarded-for):[ \t]*([^\r\n]*)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\nx-request-id:[ \t]*([^\r\n]*?)[ \t]*\r?\n", re.IGNORECASE)


class HalfRequest(Exception):
    """The client stopped sending within its headers. `seen` is what came of them, perhaps nothing."""

    def __init__(self, seen: bytes) -> None:
        super().__init__(len(seen))
        self.seen = seen


class EndlessHead(Exception):
    """More than HEAD_LIMIT_BYTES came, and the headers have not ended."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a request, up to the end of its headers, still unread on the socket."""

    data: bytes

    @property
    def upgrade_path(self) -> str | None:
        """The path that a WebSocket is asked for at; None for every other request."""
        line = _REQUEST_LINE.match(self.data)
        upgrade = _UPGRADE.search(self.data)
        if line is None or upgrade is None or b"websocket" not in upgrade[1].lower():
            return None
        return line[1].decode("latin1")

    @property
    def forwarded(self) -> list[tuple[bytes, bytes]]:
        """Its headers named X-Forwarded-For, in lower case."""
        return [(name.lower(), value) for name, value in _FORWARDED.findall(self.data)]

    @property
    def request_id(self) -> bytes | None:
        match = _REQUEST_ID.search(self.data)
        return match[1] if match else None


async def peek_head(sock: trio.socket.SocketType, progress: Callable[[int], None] = lambda _: None) -> Head:
    """Wait for the end of the headers; the caller sets the deadline, and hears how many bytes there are.

    Raises HalfRequest, EndlessHead, or OSError when the connection breaks.
    """
    seen = b""
    pause_s = _PAUSE_S
    while True:
        await trio.lowlevel.wait_readable(sock)
        data = await sock.recv(HEAD_LIMIT_BYTES, socket.MSG_PEEK)
        end = _HEAD_END.search(data)
        if end is not None:
            if seen:
                _wake_at(sock, 1)
            return Head(data[: end.end()])
        if len(data) >= HEAD_LIMIT_BYTES:
            raise EndlessHead
        if len(data) == len(seen):
            if not data or _half_closed(sock):
                raise HalfRequest(data)
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, _MOST_PAUSE_S)
        seen = data
        progress(len(seen))
        _wake_at(sock, len(data) + 1)


def _wake_at(sock: trio.socket.SocketType, size_bytes: int) -> None:
    """Count the socket as readable from this many bytes on."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)


def _half_closed(sock: trio.socket.SocketType) -> bool:
    """True when the other side has sent its FIN; the first byte of Linux's tcp_info is the state."""
    if not hasattr(socket, "TCP_INFO"):
        return True  # No way to know: a wake-up without news most likely means the end.
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_ESTABLISHED
