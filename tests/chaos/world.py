"""What a fault acts on: the exchange under test, its own servers, and the proxies between them.

Everything is awaited from the runner's loop, which also carries the load: nothing here may block it for
longer than starting a process takes. Processes are started in the loop's own thread, because the kernel
ends a child together with the thread that started it (`daemons.local.process`).
"""

import random
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from anyio import to_thread

from tests.harness.exchange import Daemon, Exchange

READY_S = 60.0
_AGAIN_S = 0.05


class ChaosFailure(AssertionError):
    """The exchange did not keep what it promises; the message holds the evidence."""


class Server(Protocol):
    """One server of the world's own: PostgreSQL, Kafka or Valkey. The same address after every start."""

    @property
    def running(self) -> bool: ...

    async def kill(self) -> None:
        """kill -9 of every process of it; all have ended when this returns."""

    async def stop(self) -> None:
        """An orderly end, as a restart does it; all processes have ended when this returns."""

    async def start(self) -> None:
        """Start it on the same data and address; it answers when this returns."""

    async def wipe(self) -> None:
        """Empty its data; only while it does not run."""

    def freeze(self) -> None:
        """SIGSTOP to every process of it."""

    def thaw(self) -> None: ...


class Proxy(Protocol):
    """What lies between the daemons and one server; tests/chaos/proxy.py says what more it can do."""

    def cut(self) -> int:
        """Reset every connection there is; gives how many. New ones are let through."""


@dataclass
class World:
    """Handed to every fault. `servers` and `proxies` are by name: postgres, kafka, valkey."""

    exchange: Exchange
    servers: Mapping[str, Server]
    proxies: Mapping[str, Proxy]
    rng: random.Random  # For what a fault could not draw beforehand.
    note: Callable[[str], None]  # One line for the report; it adds the time.
    has: frozenset[str] = field(default=frozenset())  # What this world can do: see FaultKind.needs.

    def daemons(self, *kinds: str) -> list[str]:
        """Names of the daemons of these kinds, or all: `matching` stands for matching-1 and matching-2."""
        names = self.exchange.daemons
        return [name for name in names if not kinds or any(is_of(name, kind) for kind in kinds)]

    def daemon(self, name: str) -> Daemon:
        return self.exchange.daemons[name]

    async def kill(self, *names: str) -> None:
        """kill -9 of all of them in the same moment; they have ended when this returns."""
        self.signal(signal.SIGKILL, *names)
        for name in names:
            await to_thread.run_sync(self.daemon(name).wait)

    async def drain(self, *names: str) -> None:
        """SIGTERM to all; when they have ended. Raises ChaosFailure when one does not end well in time."""
        self.signal(signal.SIGTERM, *names)
        for name in names:
            code = await to_thread.run_sync(self.daemon(name).wait)
            if code != 0:
                raise ChaosFailure(f"{name} drained with exit code {code}\n{self.daemon(name).tail()}")

    def start(self, *names: str) -> None:
        """Start them; `until_ready` waits for what comes of it."""
        for name in names:
            self.daemon(name).start()

    def signal(self, number: signal.Signals, *names: str) -> None:
        for name in names:
            self.daemon(name).signal(number)

    async def until_ready(self, within_s: float = READY_S) -> None:
        """Until an order would be accepted. Raises ChaosFailure with the ends of the logs."""
        with anyio.move_on_after(within_s):
            while not await to_thread.run_sync(self.exchange.is_ready):
                self.check_alive()
                await anyio.sleep(_AGAIN_S)  # Asking is the only way to know.
            return
        raise ChaosFailure(f"not ready within {within_s:g} s\n{self.exchange.tails()}")

    def check_alive(self) -> None:
        """Raises ChaosFailure when a daemon has ended by itself: no supervisor hides that here."""
        for name, daemon in self.exchange.daemons.items():
            if daemon.crashed:
                raise ChaosFailure(f"{name} ended by itself\n{daemon.tail()}")


def is_of(name: str, kind: str) -> bool:
    """`matching-2` is of the kind `matching`; `market-data` is of its own."""
    return name == kind or (name.startswith(f"{kind}-") and name.removeprefix(f"{kind}-").isdigit())
