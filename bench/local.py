"""An `exchange up` of the benchmark's own: how long until it is open, and what it weighs."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import psutil

from daemons.local.ports import free_port
from tests.harness.exchange import HIGH_LIMITS

READY_S = 120.0
STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds: of each part, and of the machine's cores those busy with anything, out of all."""

    parts: dict[str, float]
    busy_s: float
    whole_s: float

    def each_us(self, count: int) -> float:
        """Microseconds of all parts for each of `count` orders."""
        return sum(self.parts.values()) * 1e6 / max(1, count)


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

    @property
    def orders_port(self) -> int:
        """order-service's public gRPC."""
        ports = self.run["ports"]
        assert isinstance(ports, dict)
        return int(ports["own"]["order-service"]["orders_port"])

    def _processes(self) -> list[psutil.Process]:
        """All that run now. One may end at any moment: PostgreSQL's sessions and workers come and go."""
        return psutil.Process(self.pid).children(recursive=True)

    def resident_bytes(self) -> int:
        """The proportional set size of everything: pages that processes share count once in all."""
        size_bytes = 0
        for process in [psutil.Process(self.pid), *self._processes()]:
            with suppress(psutil.NoSuchProcess):
                size_bytes += process.memory_full_info().pss
        return size_bytes

    def resident_by_part(self) -> dict[str, int]:
        """Bytes of each part, cheaply read: pages that processes share count for each of them."""
        sizes: dict[str, int] = {}
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                name = _name(process.cmdline())
                sizes[name] = sizes.get(name, 0) + process.memory_info().rss
        return sizes

    def cpu_seconds(self) -> Spent:
        """CPU time used so far: by each part, by what its command line says it is, and by this load."""
        used = {"the load itself": time.process_time()}
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                times, name = process.cpu_times(), _name(process.cmdline())
                used[name] = used.get(name, 0.0) + times.user + times.system
        machine = psutil.cpu_times()
        whole_s = sum(machine) - machine.guest - machine.guest_nice  # Those count in `user` too.
        return Spent(used, whole_s - machine.idle - machine.iowait, whole_s)

    def daemons(self) -> dict[str, int]:
        """The process id of each daemon, by the name of the instance."""
        found = {}
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                name = process.environ().get("EXCHANGE_INSTANCE", "")
                if name:
                    found[name] = process.pid
        return found

    def cpu_since(self, before: Spent) -> Spent:
        """What was used since `cpu_seconds` gave `before`."""
        now = self.cpu_seconds()
        parts = {name: now_s - before.parts.get(name, 0.0) for name, now_s in now.parts.items()}
        return Spent(parts, now.busy_s - before.busy_s, now.whole_s - before.whole_s)


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
    env = os.environ | {f"EXCHANGE_{name.upper()}": str(limit) for name, limit in HIGH_LIMITS.items()}
    begin_s = time.perf_counter()
    try:
        async with await anyio.open_process(command, stdin=None, stderr=None, env=env) as process:
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
