"""A wire over a real socket: what is sent arrives whole and in order, and every end is noticed."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from gateway.wire import RECEIVE_BYTES, Wire

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.2
MUCH = bytes(range(256)) * 40_000  # More than the kernel takes at once.


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[Wire, trio.SocketStream, trio.SocketStream]]:
    """A wire, the stream that owns its socket, and the other side."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = await trio.open_tcp_stream(*listener.getsockname())
        accepted, _ = listener.accept()
    ours = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
    async with theirs, ours:
        with Wire(ours, TIMEOUT_S) as wire:
            yield wire, ours, theirs


async def read(stream: trio.SocketStream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += await stream.receive_some(size - len(data))
    return bytes(data)


async def test_what_is_sent_is_received_on_either_side() -> None:
    async with connection() as (wire, _, theirs):
        await wire.send(b"answer")
        assert await theirs.receive_some(100) == b"answer"
        await theirs.send_all(b"request")
        assert await wire.receive() == b"request"
        await theirs.send_eof()
        assert await wire.receive() == b""


async def test_a_receive_takes_no_more_than_its_share() -> None:
    async with connection() as (wire, _, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(theirs.send_all, MUCH)
        received = bytearray()
        while len(received) < len(MUCH):
            part = await wire.receive()
            assert 0 < len(part) <= RECEIVE_BYTES
            received += part
        assert received == MUCH


async def test_what_the_kernel_does_not_take_at_once_waits_and_is_not_mixed() -> None:
    async with connection() as (wire, _, theirs), trio.open_nursery() as nursery:
        nursery.start_soon(wire.send, MUCH)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wire.send, b"second")
        assert await read(theirs, len(MUCH) + 6) == MUCH + b"second"


async def test_who_does_not_read_is_given_up_in_time() -> None:
    async with connection() as (wire, _, _), trio.open_nursery() as nursery:
        started_s = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await wire.send(MUCH)
        assert trio.current_time() - started_s >= TIMEOUT_S
        nursery.cancel_scope.cancel()


async def test_a_reset_is_a_broken_connection_on_both_ways() -> None:
    async with connection() as (wire, _, theirs):
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # Close is a reset.
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await wire.receive()
        with pytest.raises(trio.BrokenResourceError):
            await wire.send(b"x")


async def test_closing_the_stream_wakes_who_receives() -> None:
    async with connection() as (wire, ours, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await wire.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()


async def test_the_end_of_a_wire_leaves_the_socket_open() -> None:
    async with connection() as (wire, ours, theirs):
        with Wire(ours, TIMEOUT_S) as other:
            await other.send(b"a")
        await ours.send_all(b"b")
        await wire.send(b"c")
        assert await read(theirs, 3) == b"abc"
