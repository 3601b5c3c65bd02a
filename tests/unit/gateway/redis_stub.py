"""A server that speaks as much of Redis as a test lets it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import trio


class RedisStub:
    """Answers each command by `answer`, in order; `hold` makes it wait, `end` cuts the connections."""

    def __init__(self) -> None:
        self.answer: Callable[[list[bytes]], bytes] = lambda words: b"+" + words[0] + b"\r\n"
        self.seen: list[list[bytes]] = []
        self.writes = 0  # Of the client, as far as they came apart.
        self.go = trio.Event()
        self.go.set()
        self._scopes: set[trio.CancelScope] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            async with stream:
                with suppress(trio.BrokenResourceError):
                    await self._converse(stream)
        self._scopes.discard(scope)

    async def _converse(self, stream: trio.SocketStream) -> None:
        data = b""
        async for chunk in stream:
            self.writes += 1
            commands, data = _commands(data + chunk)
            self.seen += commands
            await self.go.wait()
            await stream.send_all(b"".join(map(self.answer, commands)))

    def hold(self) -> None:
        """Answer nothing until `go` is set."""
        self.go = trio.Event()

    def end(self) -> None:
        for scope in self._scopes:
            scope.cancel()


def _commands(data: bytes) -> tuple[list[list[bytes]], bytes]:
    """The whole commands in what came, and the rest; a command comes whole, as short as they are."""
    commands = []
    while data:
        count, _, data = data.partition(b"\r\n")
        words = []
        for _ in range(int(count[1:])):
            size, _, data = data.partition(b"\r\n")
            end = int(size[1:])
            words.append(data[:end])
            data = data[end + 2 :]
        commands.append(words)
    return commands, data


@asynccontextmanager
async def redis_stub() -> AsyncIterator[tuple[RedisStub, int]]:
    """The stub and its port on 127.0.0.1."""
    stub = RedisStub()
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, stub.serve, [listener])
        yield stub, listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
