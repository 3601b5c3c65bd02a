"""gRPC from Trio, against a real server in this process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, cast

import grpc
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from common.core.errors import InsufficientFunds, Unavailable
from common.rpc import error_to_proto
from gateway.bridge import Bridge, _Waiter, connection_lost, open_channel

pytestmark = pytest.mark.anyio


def echo_of(channel: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary("/echo/Echo")


class Echo(grpc.GenericRpcHandler):
    """Answers a request with itself; `slow` waits until it is let go, `refuse` refuses."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.cancelled = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"slow":
            context.add_callback(self.cancelled.set)
            self.let_go.wait()
        if request == b"refuse":
            error = error_to_proto(InsufficientFunds("too poor", {"asset": "USD"}))
            context.set_trailing_metadata((("error-bin", error.SerializeToString()),))
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "too poor")
        return request


@pytest.fixture
def echo() -> Iterator[tuple[Echo, str]]:
    handler = Echo()
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler, f"127.0.0.1:{port}"
        handler.let_go.set()
        server.stop(None).wait()


async def test_many_calls_at_once(echo: tuple[Echo, str]) -> None:
    answers: dict[int, bytes] = {}
    async with open_channel(echo[1]) as channel:
        bridge = Bridge()
        method = echo_of(channel)

        async def ask(n: int) -> None:
            answers[n] = await bridge.call(method, b"%d" % n, timeout_s=10)

        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(ask, n)
    assert answers == {n: b"%d" % n for n in range(200)}


async def test_a_burst_of_endings_wakes_trio_once(echo: tuple[Echo, str]) -> None:
    """Endings that come while Trio is not looking are handed over together."""

    class CountingToken:
        calls = 0

        def run_sync_soon(self, function: object) -> None:
            self.calls += 1

    bridge = Bridge()
    token = CountingToken()
    bridge._token = cast(trio.lowlevel.TrioToken, token)
    waiters: list[_Waiter] = []

    async def wait() -> None:
        waiters.append(_Waiter())
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        for waiter in waiters:
            bridge._ended(waiter, None)
        assert token.calls == 1
        bridge._wake()


async def test_a_refusal_is_the_services_own_error(echo: tuple[Echo, str]) -> None:
    async with open_channel(echo[1]) as channel:
        with pytest.raises(InsufficientFunds) as refused:
            await Bridge().call(echo_of(channel), b"refuse", timeout_s=10)
    assert (refused.value.message, refused.value.details) == ("too poor", {"asset": "USD"})


async def test_cancelling_the_task_cancels_the_call(echo: tuple[Echo, str]) -> None:
    handler, address = echo
    async with open_channel(address) as channel:
        method = echo_of(channel)
        with trio.move_on_after(0.2) as scope:
            await Bridge().call(method, b"slow", timeout_s=10)
        assert scope.cancelled_caught
        assert await trio.to_thread.run_sync(handler.cancelled.wait, 10)


async def test_a_deadline_and_nobody_there_are_both_unavailable(echo: tuple[Echo, str]) -> None:
    async with open_channel(echo[1]) as channel:
        with pytest.raises(Unavailable) as late:
            await Bridge().call(echo_of(channel), b"slow", timeout_s=0.1)
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(Unavailable) as away:
            await Bridge().call(echo_of(channel), b"x", timeout_s=5)
    for refused in (late, away):
        assert "127.0.0.1" not in refused.value.message  # Our addresses are nobody's business.


async def test_a_repeatable_call_survives_a_connection_that_breaks(echo: tuple[Echo, str]) -> None:
    with breaking_server() as address:
        async with open_channel(f"{echo[1]},{address}") as channel:
            bridge, method = Bridge(), echo_of(channel)
            lost = 0
            with trio.fail_after(20):
                await until_answered(bridge, method)
                while lost < 3:
                    assert await bridge.call(method, b"x", timeout_s=5, repeat_on=connection_lost) == b"x"
                    try:
                        await bridge.call(method, b"x", timeout_s=5)
                    except Unavailable:
                        lost += 1


async def until_answered(bridge: Bridge, method: Any) -> None:
    """The sound server may be the slower one to connect, and until then no repeat could find it."""
    while True:
        try:
            await bridge.call(method, b"x", timeout_s=5)
            return
        except Unavailable:
            pass


@contextmanager
def breaking_server() -> Iterator[str]:
    """Greets as HTTP/2 asks, and breaks the connection when the first call comes."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream, suppress(OSError):
                connection.sendall(frame(4))  # SETTINGS
                stream.read(24)  # The preface.
                while (head := stream.read(9))[3:4] not in (b"", b"\x01"):  # Until HEADERS.
                    stream.read(int.from_bytes(head[:3]))
                    if head[3] == 4 and not head[4]:
                        connection.sendall(frame(4, 1))  # SETTINGS, read.
            time.sleep(0.2)  # As one that starts again. Back at once, it could draw every repeat to itself.

    def frame(kind: int, flags: int = 0) -> bytes:
        return bytes([0, 0, 0, kind, flags, 0, 0, 0, 0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_a_stream_is_kept_open_and_opened_again() -> None:
    class Stream:
        def __init__(self) -> None:
            opened.append(self)
            self.canceled = False

        def add_done_callback(self, fn: Callable[[object], None]) -> None:
            self.end = fn

        def cancel(self) -> bool:
            self.canceled = True
            return True

    opened: list[Stream] = []
    bridge = Bridge()
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridge.keep_open, cast(Any, lambda _: Stream()), b"")
            await wait_all_tasks_blocked()
            [first] = opened
            first.end(first)
            while len(opened) < 2:
                await trio.sleep(0.01)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not scope.cancelled_caught
    assert [stream.canceled for stream in opened] == [False, True]
