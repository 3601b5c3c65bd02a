"""PostgreSQL, Kafka and Valkey of one's own, which can be killed, frozen and wiped, behind proxies.

Each keeps its data and its address over every start. `own_servers` gives them with a proxy before each: the
daemons come through the proxies, and whoever judges them (the oracle, the audit) goes past.
"""

import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import psutil
from anyio import to_thread

from daemons.local.kafka import embedded_kafka
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.process import Child, DidNotComeUp, LocalError
from daemons.local.servers import Servers
from daemons.local.valkey import embedded_valkey
from tests.chaos.proxy import TcpProxy, proxies_in_a_thread
from tests.chaos.world import World

_START_TRIES, _AGAIN_S = 20, 0.25
_END_S = 10.0

Run = Callable[[], AbstractAsyncContextManager[tuple[str, Child]]]


class OwnServer:
    """One server. `url` is where it is itself, past the proxy; start and stop it from one thread."""

    def __init__(self, name: str, run: Run, data: Path) -> None:
        self.name = name
        self.url = ""
        self.data = data
        self._run = run
        self._stack: AsyncExitStack | None = None
        self._child: Child | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.returncode is None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} does not run"
        return self._child.pid

    async def start(self) -> None:
        """Start it on the same data and address; it answers when this returns.

        After kill -9 of the first process alone the others linger, and it is tried again until they ended.
        """
        if self.running:
            return
        for attempt in range(_START_TRIES):
            await self._close()
            stack = AsyncExitStack()
            try:
                self.url, self._child = await stack.enter_async_context(self._run())
            except (DidNotComeUp, LocalError):
                if attempt == _START_TRIES - 1:
                    raise
                await anyio.sleep(_AGAIN_S)
            else:
                self._stack = stack
                return

    async def stop(self) -> None:
        """An orderly end, as a restart does it; all processes have ended when this returns."""
        self.thaw()
        await self._close()

    async def kill(self) -> None:
        """kill -9 of every process of it; all have ended when this returns."""
        found = self.processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await self._close()
        await to_thread.run_sync(partial(psutil.wait_procs, found, timeout=_END_S))

    async def kill_first(self) -> None:
        """kill -9 of its first process alone: PostgreSQL's other ones notice, and linger a moment."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._child is not None
        await self._child.wait()

    async def wait(self) -> None:
        """Until it has ended by itself."""
        assert self._child is not None
        await self._child.wait()

    async def wipe(self) -> None:
        """Empty its data; only while it does not run."""
        assert not self.running
        await to_thread.run_sync(partial(self._empty, self.data))

    def freeze(self) -> None:
        """SIGSTOP to every process of it, the first one first: it would start others."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def processes(self) -> list[psutil.Process]:
        if not self.running:
            return []
        try:
            first = psutil.Process(self.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    async def _close(self) -> None:
        if self._stack is not None:
            stack, self._stack, self._child = self._stack, None, None
            await stack.aclose()

    @staticmethod
    def _empty(folder: Path) -> None:
        """What lies in it goes, it stays: it may be a mount."""
        for entry in folder.iterdir() if folder.exists() else ():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


@dataclass(frozen=True, slots=True)
class Stand:
    """`proxied` is for the daemons, `direct` for what judges them; by name: postgres, kafka, valkey."""

    servers: Mapping[str, OwnServer]
    proxies: Mapping[str, TcpProxy]
    proxied: Servers
    direct: Servers


@asynccontextmanager
async def own_servers(folder: Path, progress: Callable[[str], None] = print) -> AsyncIterator[Stand]:
    """The three and their proxies while the body runs, under the absolute folder `folder`.

    What the body makes in `direct` is seen through `proxied`, but Kafka sends everybody through its proxy.
    """
    assert folder.is_absolute()
    proxies = {name: TcpProxy(free_port(), free_port()) for name in ("postgres", "kafka", "valkey")}
    servers = _servers(folder, proxies, progress)
    with ExitStack() as threads:
        threads.enter_context(proxies_in_a_thread(*proxies.values()))
        try:
            async with anyio.create_task_group() as starting:
                for server in servers.values():
                    starting.start_soon(server.start)
            urls = {name: server.url for name, server in servers.items()}
            past = {
                name: urls[name].replace(f":{proxy.server_port}", f":{proxy.port}")
                for name, proxy in proxies.items()
            }
            yield Stand(servers, proxies, _where(past), _where(urls))
        finally:
            with anyio.CancelScope(shield=True):
                for proxy in proxies.values():
                    proxy.heal()
                for server in servers.values():
                    await server.stop()


def _servers(
    folder: Path, proxies: Mapping[str, TcpProxy], progress: Callable[[str], None]
) -> dict[str, OwnServer]:
    folder.mkdir(parents=True, exist_ok=True)
    kafka, postgres, valkey = (proxies[name] for name in ("kafka", "postgres", "valkey"))
    runs: dict[str, tuple[Run, Path]] = {
        "kafka": (
            partial(embedded_kafka, folder, kafka.server_port, free_port(), progress, kafka.port),
            folder / "kafka",
        ),
        "postgres": (partial(embedded_postgres, folder, postgres.server_port, progress), folder / "pgdata"),
        "valkey": (partial(embedded_valkey, folder, valkey.server_port, progress), folder / "valkey"),
    }
    return {name: OwnServer(name, run, data) for name, (run, data) in runs.items()}


def _where(urls: Mapping[str, str]) -> Servers:
    return Servers(urls["postgres"], urls["valkey"], urls["kafka"])


def own(world: World, name: str) -> OwnServer:
    """The world's server with everything that it can do."""
    server = world.servers[name]
    assert isinstance(server, OwnServer)
    return server


def proxy_of(world: World, name: str) -> TcpProxy:
    proxy = world.proxies[name]
    assert isinstance(proxy, TcpProxy)
    return proxy


async def freeze_for(server: OwnServer, seconds: float) -> None:
    """It answers nobody for so long; connections stay."""
    server.freeze()
    try:
        await anyio.sleep(seconds)
    finally:
        server.thaw()
