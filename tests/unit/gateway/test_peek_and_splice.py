"""Peeking and splicing on real loopback sockets."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gateway.peek import HEAD_LIMIT_BYTES, EndlessHead, HalfRequest, Head, peek_head
from gateway.splice import dial, splice

pytestmark = pytest.mark.anyio

GET = b"GET /ws?x=1 HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nX-Request-Id: abc\r\n\r\n"
PATIENCE_S = 10.0


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Two ends of a TCP connection, closed afterwards."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        left = await trio.open_tcp_stream(*listener.getsockname())
        sock, _ = await listener.accept()
    async with left, trio.SocketStream(sock) as right:
        yield left, right


async def test_a_whole_head_is_seen_and_stays_on_the_socket() -> None:
    async with pair() as (client, server):
        await client.send_all(GET + b"first frame")
        head = await peek_head(server.socket)
        assert head.data == GET
        assert (head.upgrade_path, head.request_id) == ("/ws", b"abc")
        assert await server.receive_some(1000) == GET + b"first frame"


async def test_a_head_in_pieces_wakes_the_task_once_for_each_and_not_in_between() -> None:
    async with pair() as (client, server), trio.open_nursery() as nursery:
        heads: list[Head] = []
        peeks = CountingSocket(server.socket)

        async def peek() -> None:
            heads.append(await peek_head(cast(trio.socket.SocketType, peeks)))

        nursery.start_soon(peek)
        pieces = [GET[start : start + 20] for start in range(0, len(GET), 20)]
        for piece in pieces:
            await client.send_all(piece)
            await trio.sleep(0.02)  # Time in which a loop of peeks would spin thousands of times.
        with trio.fail_after(PATIENCE_S):
            while not heads:
                await trio.sleep(0.001)
        assert heads[0].data == GET
        assert peeks.count <= len(pieces) + 1
        assert await server.receive_some(1000) == GET


class CountingSocket:
    """Counts the peeks; everything else is the socket's own."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self.count = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)

    async def recv(self, size: int, flags: int = 0) -> bytes:
        self.count += 1
        return await self._sock.recv(size, flags)


async def test_a_client_that_ends_within_its_headers() -> None:
    async with pair() as (client, server):
        await client.send_all(GET[:30])
        await client.send_eof()
        with trio.fail_after(PATIENCE_S), pytest.raises(HalfRequest) as half:
            await peek_head(server.socket)
        assert half.value.seen == GET[:30]


async def test_a_client_that_ends_before_its_headers() -> None:
    async with pair() as (client, server):
        await client.send_eof()
        with pytest.raises(HalfRequest) as half:
            await peek_head(server.socket)
        assert half.value.seen == b""


async def test_headers_without_end() -> None:
    async with pair() as (client, server):
        await client.send_all(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_LIMIT_BYTES)
        with trio.fail_after(PATIENCE_S), pytest.raises(EndlessHead):
            await peek_head(server.socket)


@pytest.mark.parametrize(
    ("head", "path"),
    [
        (b"GET /ws HTTP/1.1\r\nupgrade: websocket\r\n\r\n", "/ws"),
        (b"GET /ws HTTP/1.1\nupgrade: websocket\n\n", "/ws"),
        (b"GET /else HTTP/1.1\r\nUpgrade: h2c, websocket\r\n\r\n", "/else"),
        (b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"POST /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", None),
        (b"GET /ws HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n", None),
        (b"GET /ws HTTP/1.1\r\nUpgrade: h2c\r\n\r\n", None),
        (b"GET /ws HTTP/1.0\r\nUpgrade: websocket\r\n\r\n", None),
        (b"\r\nGET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", None),
        (b"\x16\x03\x01 TLS, perhaps\r\n\r\n", None),
    ],
)
def test_which_heads_ask_for_a_websocket(head: bytes, path: str | None) -> None:
    assert Head(head).upgrade_path == path


async def test_bytes_go_both_ways_and_each_end_is_passed_on_alone() -> None:
    async with pair() as (client, front), pair() as (back, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(splice, front, back)
        await client.send_all(b"question")
        assert await upstream.receive_some(100) == b"question"
        await client.send_eof()
        assert await upstream.receive_some(100) == b""
        await upstream.send_all(b"an answer after the question's end")
        assert await client.receive_some(100) == b"an answer after the question's end"
        await upstream.send_eof()
        assert await client.receive_some(100) == b""


async def test_no_byte_is_lost_or_kept_when_the_reader_is_slow() -> None:
    size = 20 << 20
    async with pair() as (client, front), pair() as (back, upstream), trio.open_nursery() as nursery:
        nursery.start_soon(splice, front, back)
        sent = bytearray()

        async def send() -> None:
            for n in range(size >> 16):
                await upstream.send_all(bytes([n % 251]) * (1 << 16))
                sent.extend([n % 251])
            await upstream.send_eof()

        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.05)
        assert len(sent) < size >> 16  # The sender waits for the reader: nothing is piled up here.
        got = 0
        while chunk := await client.receive_some(1 << 16):
            assert chunk[0] in ((got >> 16) % 251, ((got >> 16) + 1) % 251)
            got += len(chunk)
        assert got == size
        await client.send_eof()


async def test_a_break_on_one_side_ends_both() -> None:
    async with pair() as (client, front), pair() as (back, upstream):
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(splice, front, back)
                await client.send_all(b"x")
                await upstream.receive_some(1)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await client.aclose()  # With this linger: a reset.


async def test_dialing_goes_on_to_one_that_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        both = ",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in (unused, listening))
        for _ in range(10):  # The order is drawn.
            stream = await dial(both)
            assert stream.socket.getpeername() == listening.getsockname()
            await stream.aclose()


async def test_dialing_where_nobody_listens() -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError):  # noqa: PT011  # Whichever the system says.
            await dial(f"127.0.0.1:{unused.getsockname()[1]}")
