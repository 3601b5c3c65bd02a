"""Faults of Kafka: restarted, killed, frozen, wiped, its disk full."""

import errno
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from tests.chaos.faults import Fault, FaultKind
from tests.chaos.servers import freeze_for, own
from tests.chaos.world import World

NEEDS = frozenset({"kafka"})
_ROOM_BYTES, _STEP_BYTES = 24 << 20, 1 << 12
_TRADES_S, _GIVES_UP_S = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    down_s: float

    async def inject(self, world: World) -> None:
        await own(world, "kafka").stop()
        await anyio.sleep(self.down_s)
        await own(world, "kafka").start()


@dataclass(frozen=True, slots=True)
class Kill:
    down_s: float

    async def inject(self, world: World) -> None:
        await own(world, "kafka").kill()
        await anyio.sleep(self.down_s)
        await own(world, "kafka").start()


@dataclass(frozen=True, slots=True)
class Freeze:
    frozen_s: float

    async def inject(self, world: World) -> None:
        await freeze_for(own(world, "kafka"), self.frozen_s)


@dataclass(frozen=True, slots=True)
class Wipe:
    """Everything it had is gone, and it begins anew as another cluster, without topics."""

    down_s: float

    async def inject(self, world: World) -> None:
        server = own(world, "kafka")
        await server.kill()
        await server.wipe()
        await anyio.sleep(self.down_s)
        await server.start()


@dataclass(frozen=True, slots=True)
class FullDisk:
    """Its data lies on a small file system for a while, which is filled; then there is room again.

    A broker whose only disk refuses to write ends by itself, and is started again when there is room.
    """

    full_s: float

    async def inject(self, world: World) -> None:
        server = own(world, "kafka")
        await server.stop()
        async with _on_small_disk(server.data):
            await server.start()
            await anyio.sleep(_TRADES_S)
            ballast = server.data.parent / "kafka.small" / "ballast"
            size = await to_thread.run_sync(_fill, ballast)
            with anyio.move_on_after(_GIVES_UP_S):
                await server.wait()
            world.note(
                f"{size >> 20} MiB of ballast; the broker {'goes on' if server.running else 'gave up'}"
            )
            await anyio.sleep(self.full_s)
            ballast.unlink()
            await server.stop()
        await server.start()


@asynccontextmanager
async def _on_small_disk(data: Path) -> AsyncIterator[None]:
    """The data on a file system with little room while the body runs, and back where it was afterwards.

    The server must not run when this begins and when it ends. Its folder is a link meanwhile.
    """
    small = data.parent / "kafka.small"
    small.mkdir(exist_ok=True)
    size = await to_thread.run_sync(_used_bytes, data)
    await _call("mount", "-t", "tmpfs", "-o", f"size={size + _ROOM_BYTES}", "tmpfs", str(small))
    try:
        aside = data.with_name("kafka.aside")
        await to_thread.run_sync(partial(shutil.copytree, data, small / "kafka", symlinks=True))
        await to_thread.run_sync(_put_aside, data, aside, small / "kafka")
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_put_back, data, aside, small / "kafka")
    finally:
        with anyio.CancelScope(shield=True):
            await _call("umount", "-l", str(small))


def _put_aside(data: Path, aside: Path, small: Path) -> None:
    data.rename(aside)
    data.symlink_to(small)


def _put_back(data: Path, aside: Path, small: Path) -> None:
    data.unlink()
    shutil.copytree(small, data, symlinks=True)
    shutil.rmtree(aside)


def _fill(path: Path) -> int:
    """Until there is no room; gives how much that took."""
    size = 0
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                size += file.write(bytes(_STEP_BYTES))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return size


def _used_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def _call(*command: str) -> None:
    await to_thread.run_sync(partial(subprocess.run, command, check=True, capture_output=True))


def _can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


def _restart(rng: random.Random) -> Fault:
    return Restart(round(rng.uniform(0, 3), 2))


def _kill(rng: random.Random) -> Fault:
    return Kill(round(rng.uniform(0, 3), 2))


def _freeze(rng: random.Random) -> Fault:
    return Freeze(round(rng.uniform(1, 5), 2))


def _wipe(rng: random.Random) -> Fault:
    return Wipe(round(rng.uniform(0, 3), 2))


def _full_disk(rng: random.Random) -> Fault:
    return FullDisk(round(rng.uniform(0, 2), 2))


KINDS = [
    FaultKind("Kafka restarted", _restart, NEEDS),
    FaultKind("kill -9 Kafka", _kill, NEEDS, quick=True),
    FaultKind("SIGSTOP Kafka", _freeze, NEEDS),
    FaultKind("Kafka's data wiped", _wipe, NEEDS, quick=True),
]
if _can_mount():
    KINDS.append(FaultKind("Kafka's disk full", _full_disk, NEEDS))
