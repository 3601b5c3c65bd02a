"""`exchange restart`: one daemon after the other is drained and started again, while the others serve.

The command writes which ones into the data folder and sends SIGUSR1; the `exchange up` of that folder does
it and writes how it went. Each goes only when the one before is ready again; when one does not get ready,
the rest stays as it is.
"""

import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from daemons.local.fleet import Keeper
from daemons.local.process import LocalError, Progress, alone
from daemons.local.record import is_locked, read_run

READY_S = 60.0
# After one is ready: until everybody is connected to it (see common.rpc) and it has its share of the leases.
SETTLE_S = 1.0
_LOOK_S = 0.1
_ASKED, _DONE = "restart.json", "restarted.json"

IsReady = Callable[[str], Awaitable[bool]]


@asynccontextmanager
async def heeding_restarts(
    keepers: Mapping[str, Keeper], data: Path, is_ready: IsReady, progress: Progress
) -> AsyncIterator[None]:
    """For `exchange up`: do what `ask_restart` asks for, while the body runs."""
    forget_restarts(data)
    with anyio.open_signal_receiver(signal.SIGUSR1) as received:
        async with alone(), anyio.create_task_group() as group:
            group.start_soon(_heed, received, keepers, data, is_ready, progress)
            _write(data / _DONE, "")  # Says that the signal is heeded: before, it would have killed us.
            try:
                yield
            finally:
                forget_restarts(data)
            group.cancel_scope.cancel()


async def _heed(
    received: AsyncIterator[signal.Signals],
    keepers: Mapping[str, Keeper],
    data: Path,
    is_ready: IsReady,
    progress: Progress,
) -> None:
    async for _ in received:
        try:
            names = json.loads((data / _ASKED).read_text())
        except FileNotFoundError:
            continue  # Somebody else's signal.
        problem = await roll(keepers, names, is_ready, progress)
        _write(data / _DONE, problem)
        (data / _ASKED).unlink(missing_ok=True)


async def roll(
    keepers: Mapping[str, Keeper],
    names: Sequence[str],
    is_ready: IsReady,
    progress: Progress,
    *,
    ready_s: float = READY_S,
    settle_s: float = SETTLE_S,
) -> str:
    """Restart these, or all; gives what went wrong, or ""."""
    unknown = [name for name in names if name not in keepers]
    if unknown:
        return f"There is no daemon {' or '.join(unknown)}; there are {', '.join(keepers)}"
    for name in names or keepers:
        progress(f"Restarting {name} ...")
        await keepers[name].restart()
        if not await _becomes_ready(name, is_ready, ready_s):
            return f"{name} did not get ready again; its log: {keepers[name].program.log}"
        await anyio.sleep(settle_s)
    return ""


async def _becomes_ready(name: str, is_ready: IsReady, within_s: float) -> bool:
    give_up_s = anyio.current_time() + within_s
    while anyio.current_time() < give_up_s:
        if await is_ready(name):
            return True
        await anyio.sleep(_LOOK_S)  # Another process: there is no event to wait for.
    return False


async def ask_restart(data: Path, names: Sequence[str]) -> None:
    """Have the `exchange up` on this folder restart these daemons, or all, and wait until it has.

    Raises LocalError with what went wrong.
    """
    run = read_run(data)
    if run is None:
        raise LocalError(f"No exchange runs on {data}")
    if not (data / _DONE).exists():
        raise LocalError("The exchange is not open")
    if (data / _ASKED).exists():
        raise LocalError("Another restart is under way")
    _write(data / _ASKED, list(names))
    os.kill(run.pid, signal.SIGUSR1)
    while (data / _ASKED).exists():
        if not is_locked(data):
            raise LocalError("The exchange ended")
        await anyio.sleep(_LOOK_S)
    try:
        problem = json.loads((data / _DONE).read_text())
    except FileNotFoundError:
        raise LocalError("The exchange is going down") from None
    if problem:
        raise LocalError(problem)


def _write(path: Path, content: object) -> None:
    half = path.with_name(path.name + ".new")
    half.write_text(json.dumps(content))
    half.replace(path)


def forget_restarts(data: Path) -> None:
    """What one that was killed, or is going down, has left undone."""
    for name in (_ASKED, _DONE):
        (data / name).unlink(missing_ok=True)
