"""The tools of the chaos tests do what they say: the proxy and the wrong clock."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from daemons.local.ports import free_port
from tests.chaos.proxy import TcpProxy, proxies_in_a_thread

pytestmark = pytest.mark.anyio

_SKEWED = Path(__file__).parents[1] / "chaos" / "skewed.py"


class Echo:
    """Answers with what it hears, and keeps it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        index = len(self.heard)
        self.heard.append(b"")
        async with stream:
            try:
                async for data in stream:
                    self.heard[index] += data
                    await stream.send(data)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                pass


@asynccontextmanager
async def proxied_echo() -> AsyncIterator[tuple[Echo, TcpProxy]]:
    echo, proxy = Echo(), TcpProxy(free_port(), free_port())
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=proxy.server_port)
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo.serve)
        with proxies_in_a_thread(proxy):
            yield echo, proxy
        group.cancel_scope.cancel()


async def ask(stream: anyio.abc.SocketStream, text: bytes) -> bytes:
    await stream.send(text)
    return await stream.receive()


async def until_heard(echo: Echo, heard: list[bytes]) -> None:
    with anyio.fail_after(5):
        while echo.heard != heard:  # Another connection's: no event.
            await anyio.sleep(0.01)


async def test_it_passes_drops_and_heals() -> None:
    async with proxied_echo() as (_, proxy), await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        assert await ask(stream, b"one") == b"one"
        proxy.drop(True)
        with anyio.move_on_after(0.2) as waiting:
            await ask(stream, b"two")
        assert waiting.cancelled_caught
        proxy.heal()
        assert await stream.receive() == b"two"


async def test_it_delays() -> None:
    async with proxied_echo() as (_, proxy), await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        proxy.delay(0.1)
        begun_s = anyio.current_time()
        await ask(stream, b"late")
        assert anyio.current_time() - begun_s >= 0.2


async def test_it_cuts_and_lets_new_ones_through() -> None:
    async with proxied_echo() as (_, proxy):
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            await ask(stream, b"one")
            assert proxy.cut() == 1
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        async with await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
            assert await ask(stream, b"two") == b"two"


async def test_it_halves() -> None:
    async with proxied_echo() as (echo, proxy), await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await ask(stream, b"one ")
        assert proxy.halve() == 1
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await ask(stream, b"half")
        await until_heard(echo, [b"one ha"])


async def test_it_says_again_on_a_second_connection() -> None:
    async with proxied_echo() as (echo, proxy), await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        greeting, large = b"hello ", b"x" * 4_000
        await ask(stream, greeting)
        await stream.send(large)
        await until_heard(echo, [greeting + large])
        proxy.duplicate()
        await stream.send(b"again")
        await until_heard(echo, [greeting + large + b"again", greeting + b"again"])


async def test_it_sees_a_chunk_before_it_passes() -> None:
    heard: list[list[bytes]] = []
    async with proxied_echo() as (echo, proxy), await anyio.connect_tcp("127.0.0.1", proxy.port) as stream:
        await ask(stream, b"I am one")
        port = stream.extra(anyio.abc.SocketAttribute.local_port)

        def watch(greeting: bytes, chunk: bytes, from_port: int) -> bool:
            return (greeting, chunk, from_port) == (b"I am one", b"COMMIT", port)

        with proxy.watching(watch, lambda: heard.append(list(echo.heard))) as seen:
            await ask(stream, b"COMMIT")
            assert seen.is_set()
    assert heard == [[b"I am one"]]


@pytest.mark.parametrize("shift_s", [-3600, 3600])
def test_a_process_whose_clock_is_wrong(shift_s: int, tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(
        "import datetime, sys, time\n"
        "now = datetime.datetime.now(datetime.UTC)\n"
        "assert isinstance(now + datetime.timedelta(1), datetime.datetime)\n"
        "print(__name__, sys.argv[0][-7:], time.time(), time.time_ns() / 1e9, now.timestamp())\n"
    )
    command = [sys.executable, str(_SKEWED), str(shift_s), "says"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, check=True, capture_output=True, text=True
    )
    name, module, *clocks = done.stdout.split()
    assert (name, module) == ("__main__", "says.py")
    assert all(abs(float(clock) - time.time() - shift_s) < 30 for clock in clocks)
