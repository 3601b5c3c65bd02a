"""One child process: started with its output in a log file, watched, and stopped within a bound.

A child never outlives this process. It gets a signal from the kernel when the thread that started it
ends (`setpriv --pdeathsig`; where there is no setpriv, an orderly stop still ends it), so start children
from a thread that lives as long as they should.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from common.core.errors import ExchangeError
from common.supervise import leaves

Progress = Callable[[str], None]

_TAIL_BYTES = 3_000
_KEEP_LOG_BYTES = 16 << 20
_POLL_S = 0.05
_CHECK_S = 5.0


class LocalError(ExchangeError):
    """Something of the local exchange cannot work; the message is a sentence for people."""

    code = "LOCAL"


class DidNotComeUp(LocalError):
    """A child ended, or did not answer in time; the message ends with the tail of its log."""

    code = "DID_NOT_COME_UP"


@asynccontextmanager
async def alone() -> AsyncIterator[None]:
    """Around a task group: an error that came alone leaves alone, not in a group."""
    try:
        yield
    except BaseExceptionGroup as group:
        errors = list(leaves(group))
        if len(errors) == 1:
            raise errors[0] from errors[0].__cause__
        raise


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `stop_signal` asks it to end, and after `stop_s` it is killed.

    `orphan_signal` is what the kernel sends when we die; `privileges` holds more options of setpriv.
    """

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    pass_fds: Sequence[int] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 10.0
    orphan_signal: signal.Signals = signal.SIGKILL
    privileges: Sequence[str] = field(default=())


class Child:
    """A started program. `pid` stays valid until `wait` or `stop` has returned."""

    def __init__(self, program: Program, process: anyio.abc.Process, log_start: int) -> None:
        self.program = program
        self._process = process
        self._log_start = log_start

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the end; gives the exit code, negative for a signal."""
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process itself; nothing happens when it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # It has been waited for, and we have not been told yet.
                os.kill(self._process.pid, number)

    async def stop(self) -> None:
        """Ask it to end, kill what has not ended in time, and wait. Safe when canceled or repeated."""
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self.send_signal(self.program.stop_signal)
                self.send_signal(signal.SIGCONT)  # A stopped process would not even see it.
                with anyio.move_on_after(self.program.stop_s):
                    await self._process.wait()
            _kill_group(self._process.pid)  # Its own children too: each is the leader of a session.
            await self._process.wait()

    def tail(self) -> str:
        """What it wrote last since this start, for an error message."""
        return tail_of(self.program.log, self._log_start)


def tail_of(path: Path, begin: int = 0) -> str:
    """The end of a log, from byte `begin` on at the earliest; empty when there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(begin, size - _TAIL_BYTES))
        return log.read().decode(errors="replace").strip()


async def start(program: Program) -> Child:
    """Start it with its output appended to its log. Raises LocalError when it cannot be run at all."""
    log_start = _prepare_log(program.log)
    with program.log.open("ab") as log:
        try:
            process = await anyio.open_process(
                command(program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=program.env,
                cwd=program.cwd,
                pass_fds=program.pass_fds,
                start_new_session=True,  # Ctrl-C in a terminal is for us; we stop children in order.
            )
        except OSError as error:
            raise LocalError(f"{program.name} cannot be started: {error}") from error
    return Child(program, process, log_start)


async def run(program: Program, within_s: float) -> None:
    """Run to the end. Raises DidNotComeUp with the tail of the log when it fails or takes longer."""
    child = await start(program)
    try:
        with anyio.move_on_after(within_s):
            if await child.wait() == 0:
                return
        raise DidNotComeUp(f"{program.name} {_how_it_ended(child, within_s)}:\n{child.tail()}")
    finally:
        await child.stop()


async def until_up(child: Child, answers: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Ask until it answers. Raises DidNotComeUp when it ends first or does not answer in time.

    `answers` gives False, or raises OSError, for "not yet".
    """
    async with alone(), anyio.create_task_group() as asking:
        asking.cancel_scope.deadline = anyio.current_time() + within_s
        asking.start_soon(_cancel_when_ended, child, asking.cancel_scope)
        while True:
            with anyio.move_on_after(_CHECK_S), suppress(OSError):  # Nobody listens yet.
                if await answers():
                    asking.cancel_scope.cancel()
                    return
            await anyio.sleep(_POLL_S)  # A foreign server has no event to wait for.
    name = child.program.name
    raise DidNotComeUp(
        f"{name} did not come up: it {_how_it_ended(child, within_s)}."
        f" The end of {child.program.log}:\n{child.tail() or '(empty)'}"
    )


async def _cancel_when_ended(child: Child, scope: anyio.CancelScope) -> None:
    await child.wait()
    scope.cancel()


def _how_it_ended(child: Child, within_s: float) -> str:
    if child.returncode is None:
        return f"gave no answer within {within_s:.0f} s"
    if child.returncode < 0:
        return f"was ended by {signal.Signals(-child.returncode).name}"
    return f"ended with code {child.returncode}"


def command(program: Program) -> list[str]:
    """The command, under setpriv where there is one: no preexec_fn, which is not safe with threads."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if program.privileges:
            raise LocalError(
                f"{program.name} must not run as root, and `setpriv` (of util-linux) is not installed"
            )
        return list(program.argv)
    signal_name = program.orphan_signal.name.removeprefix("SIG")
    return [setpriv, *program.privileges, "--pdeathsig", signal_name, "--", *program.argv]


def _prepare_log(path: Path) -> int:
    """Make the folder, put a large log aside, and give the size from which this start writes."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    size = path.stat().st_size if path.exists() else 0
    if size > _KEEP_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
        return 0
    return size


def _kill_group(leader_pid: int) -> None:
    with suppress(ProcessLookupError):  # All of them have ended.
        os.killpg(leader_pid, signal.SIGKILL)
