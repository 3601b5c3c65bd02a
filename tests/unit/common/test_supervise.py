"""supervise: the drain in virtual time on both loops, and real signals to a real process."""

import gc
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from common.config import BadSetting, Settings
from common.supervise import (
    DRAINED,
    FAILED,
    MISCONFIGURED,
    Lifecycle,
    collector_at_rest,
    leaves,
    supervise,
)
from tests.harness.virtual_time import Backend, virtual_time

DRAIN_S = 5.0
SETTINGS = Settings.model_construct(**(Settings().model_dump() | {"drain_s": DRAIN_S}))


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


@contextmanager
def signals_at(*times_s: float) -> Iterator[AsyncIterator[signal.Signals]]:
    async def received() -> AsyncIterator[signal.Signals]:
        start_s = anyio.current_time()
        for time_s in times_s:
            await anyio.sleep_until(start_s + time_s)
            yield signal.SIGTERM
        await anyio.sleep_forever()

    yield received()


async def ends(main: Callable[[Settings, Lifecycle], Awaitable[None]], *times_s: float) -> tuple[int, float]:
    """The exit code, and when it came."""
    start_s = anyio.current_time()
    code = await supervise(main, SETTINGS, signals_at(*times_s))
    return code, anyio.current_time() - start_s


@pytest.mark.anyio
async def test_leaving_the_blocks_is_the_drain() -> None:
    left: list[str] = []

    @asynccontextmanager
    async def block(name: str) -> AsyncIterator[None]:
        yield
        await anyio.sleep(1)
        left.append(name)

    async def main(settings: Settings, life: Lifecycle) -> None:
        async with block("resources"), block("working"), block("serving"), block("accepting"):
            await life.stopped()

    assert await ends(main, 10) == (DRAINED, 14)
    assert left == ["accepting", "serving", "working", "resources"]


@pytest.mark.anyio
async def test_a_drain_that_takes_too_long_is_cut_off() -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        await life.stopped()
        await anyio.sleep_forever()

    assert await ends(main, 1) == (FAILED, 1 + DRAIN_S)


@pytest.mark.anyio
async def test_a_second_signal_cuts_the_drain_off_at_once() -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        await life.stopped()
        await anyio.sleep_forever()

    assert await ends(main, 1, 2) == (FAILED, 2)


@pytest.mark.anyio
async def test_an_end_that_nobody_asked_for_is_a_failure() -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        await anyio.sleep(1)

    assert await ends(main) == (FAILED, 1)


@pytest.mark.anyio
async def test_a_daemon_may_ask_for_its_own_end() -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        life.stop("done")
        life.stop("twice is once")
        await life.stopped()

    assert await ends(main) == (DRAINED, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["at work", "in the drain"])
async def test_an_error_is_a_failure(when: str) -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        async with anyio.create_task_group():
            if when == "in the drain":
                await life.stopped()
            raise ZeroDivisionError

    code, _ = await ends(main, 1)
    assert code == FAILED


@pytest.mark.anyio
async def test_a_setting_that_main_finds_wrong_is_let_out_alone() -> None:
    async def main(settings: Settings, life: Lifecycle) -> None:
        async with anyio.create_task_group():
            raise BadSetting("EXCHANGE_POSTGRES_URL is empty")

    with pytest.raises(BadSetting, match="EXCHANGE_POSTGRES_URL is empty"):
        await ends(main)


def test_leaves_are_the_errors_inside_groups() -> None:
    one, two, three = ValueError(1), KeyError(2), OSError(3)
    assert list(leaves(ExceptionGroup("g", [one, ExceptionGroup("h", [two, three])]))) == [one, two, three]
    assert list(leaves(one)) == [one]


PROGRAM = """
import sys
import anyio
from common.supervise import run

async def main(settings, life):
    print("up", flush=True)
    try:
        await life.stopped()
        if "crash" in sys.argv:
            async with anyio.create_task_group():
                raise ValueError("a cause")
        if "hang" in sys.argv:
            print("draining", flush=True)
            await anyio.sleep_forever()
    finally:
        print("closed", flush=True)

run("test", main, backend=sys.argv[1])
"""


@pytest.fixture(params=["asyncio", "trio"])
def daemon(request: pytest.FixtureRequest) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts PROGRAM as a process of its own, and waits until it is up."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, drain_s: float = 30) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, request.param, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"EXCHANGE_DRAIN_S": str(drain_s), "EXCHANGE_INSTANCE": "one"},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: "subprocess.Popen[str]") -> tuple[int, str, list[dict[str, Any]]]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, [json.loads(line) for line in err.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_0(
    daemon: Callable[..., "subprocess.Popen[str]"], number: signal.Signals
) -> None:
    process = daemon()
    process.send_signal(number)
    code, out, log = end(process)
    assert (code, out) == (DRAINED, "closed\n")
    assert [line["event"] for line in log] == ["stopping", "drained"]
    assert (log[0]["why"], log[0]["service"], log[0]["instance"]) == (number.name, "test", "one")


def test_an_error_is_logged_by_its_cause_and_exits_1(daemon: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = daemon("crash")
    process.terminate()
    code, out, log = end(process)
    assert (code, out) == (FAILED, "closed\n")
    assert log[-1]["error"] == "ValueError('a cause')"
    assert "Group" not in log[-1]["exception"]


def test_a_second_signal_exits_1_at_once(daemon: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = daemon("hang")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "draining\n"
    process.terminate()
    code, out, log = end(process)
    assert (code, out) == (FAILED, "closed\n")
    assert [line["event"] for line in log][1] == "cancelled by a second signal"


def test_a_drain_past_its_deadline_exits_1(daemon: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = daemon("hang", drain_s=0.2)
    process.terminate()
    code, _, log = end(process)
    assert code == FAILED
    assert log[-1]["event"] == "the drain did not end in time"


def test_a_wrong_setting_exits_2_with_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "trio"],
        capture_output=True,
        text=True,
        env={"EXCHANGE_PORT": "many"},
        check=False,
    )
    assert done.returncode == MISCONFIGURED
    assert done.stdout == ""
    assert done.stderr.startswith("EXCHANGE_PORT is 'many': ")
    assert len(done.stderr.splitlines()) == 1


def test_what_is_made_while_the_collector_rests_is_not_looked_at_again() -> None:
    with collector_at_rest():
        assert not gc.isenabled()
        made = [[number] for number in range(1_000)]
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() >= len(made)
    finally:
        gc.unfreeze()
