"""An `exchange up` of the benchmark's own: how long until it is open, and what it weighs."""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil

from daemons.local.ports import free_port

READY_S = 120.0
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Local:
    host: str
    port: int
    ready_s: float
    pid: int
    data: Path

    @property
    def run(self) -> dict[str, object]:
        """What `exchange up` says of itself: servers and ports."""
        found = json.loads((self.data / "run.json").read_text())
        assert isinstance(found, dict)
        return found

    def resident_bytes(self) -> int:
        """The proportional set size of everything: pages that processes share count once in all."""
        root = psutil.Process(self.pid)
        return sum(one.memory_full_info().pss for one in [root, *root.children(recursive=True)])

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time used so far by each part, by what its command line says it is."""
        used: dict[str, float] = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            times = process.cpu_times()
            name = _name(process.cmdline())
            used[name] = used.get(name, 0.0) + times.user + times.system
        return used


def _name(words: list[str]) -> str:
    line = " ".join(words)
    for mark, name in (
        ("daemons.order_service", "order-service"),
        ("daemons.matching", "matching"),
        ("daemons.market_data", "market-data"),
        ("gateway", "gateway"),
        ("kafka.Kafka", "Kafka"),
        ("postgres", "PostgreSQL"),
        ("valkey", "Valkey"),
    ):
        if mark in line:
            return name
    return "other"


@asynccontextmanager
async def exchange_up() -> AsyncIterator[Local]:
    """A fresh exchange in a temporary folder, without the demo; gone when the body ends."""
    data = Path(tempfile.mkdtemp(prefix="exchange-bench-"))
    port = free_port()
    command = [sys.executable, "-m", "daemons.local.cli", "up", "--data", str(data), "--port", str(port)]
    begin_s = time.perf_counter()
    try:
        async with await anyio.open_process(command, stdin=None, stderr=None) as process:
            assert process.stdout is not None
            with anyio.fail_after(READY_S):
                printed = ""
                while f"http://127.0.0.1:{port}" not in printed:
                    printed += (await process.stdout.receive()).decode()
            try:
                yield Local("127.0.0.1", port, time.perf_counter() - begin_s, process.pid, data)
            finally:
                process.terminate()
                with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_S):
                    async for _ in process.stdout:
                        pass
                    await process.wait()
    finally:
        shutil.rmtree(data, ignore_errors=True)
