"""A connection's socket, read and written with as few passes through Trio's loop as can be.

A Trio stream yields to the loop around each operation, also one that need not wait, and tries to read
before anything can have come. For a request that is read at once and answered at once this costs more
than the operations themselves. Here a read waits once, and a write that the kernel takes does not wait.
"""

import socket
from types import TracebackType

import trio

RECEIVE_BYTES = 1 << 16


class Wire:
    """A block within the life of the stream, which stays the owner of the socket and closes it."""

    def __init__(self, stream: trio.SocketStream, send_timeout_s: float) -> None:
        """`send_timeout_s`: how long the other side may leave our bytes unread."""
        self._stream = stream
        self._send_timeout_s = send_timeout_s
        self._sending = trio.Lock()

    def __enter__(self) -> "Wire":
        theirs = self._stream.socket
        self._socket = socket.socket(theirs.family, theirs.type, theirs.proto, theirs.fileno())
        self._socket.setblocking(False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.detach()

    async def receive(self) -> bytes:
        """What has come, at most RECEIVE_BYTES; b"" when the other side has ended. For one task.

        Raises BrokenResourceError, and ClosedResourceError when the stream is closed meanwhile.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue  # A wake-up for nothing.
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send(self, data: bytes) -> None:
        """Send all of it, after what others are sending.

        Raises TooSlowError, BrokenResourceError or ClosedResourceError; nothing can be sent after that.
        """
        if not self._sending.locked():
            data = data[self._send_now(data) :]
            if not data:
                return
        async with self._sending:
            with trio.fail_after(self._send_timeout_s):
                await self._stream.send_all(data)

    def _send_now(self, data: bytes) -> int:
        """How many bytes the kernel took without waiting."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise trio.BrokenResourceError from error
