"""The daemons of the local exchange: what each is started with, their restarts, the order of their drain.

A daemon that ends is started again, after a pause that doubles while it keeps ending. All share one
environment, in which only the instance, the health port and the inherited socket differ.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc

from common.config import Settings
from daemons.local.ports import free_port, listen, preferred_port
from daemons.local.process import Child, LocalError, Program, Progress, alone, start
from daemons.local.servers import Servers

# Name -> module, in the order in which they drain: who takes orders in ends before who carries them out.
MODULES = {
    "gateway": "gateway",
    "order-service": "daemons.order_service",
    "matching-1": "daemons.matching",
    "matching-2": "daemons.matching",
    "market-data": "daemons.market_data",
}
_DRAIN_ORDER = (("gateway",), ("order-service",), ("matching-1", "matching-2"), ("market-data",))

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.5, 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens; `health` holds the port of each daemon but the gateway."""

    gateway: int
    orders: int
    market_data: int
    orders_internal: int
    market_data_ws: int
    health: Mapping[str, int] = field(default_factory=dict)


def choose_ports(settings: Settings, gateway: int) -> Ports:
    """The public gRPC ports are those that the settings name, or else follow the gateway's where free.

    Raises PortTaken for a named one that is taken.
    """
    return Ports(
        gateway=gateway,
        orders=_public_port(settings, "orders_port", gateway + 1),
        market_data=_public_port(settings, "market_data_port", gateway + 2),
        orders_internal=free_port(),
        market_data_ws=free_port(),
        health={name: free_port() for name in MODULES if name != "gateway"},
    )


def _public_port(settings: Settings, name: str, otherwise: int) -> int:
    if name not in settings.model_fields_set:
        return preferred_port(otherwise, settings.host)
    port = int(getattr(settings, name))
    listen(settings.host, port, f"EXCHANGE_{name.upper()}").close()
    return port


def programs(
    settings: Settings, servers: Servers, ports: Ports, logs: Path, listener: socket.socket
) -> dict[str, Program]:
    """What to run for each daemon, by name. The gateway inherits `listener`, which outlives it."""
    shared = os.environ | _environment(settings, servers, ports)
    made = {}
    for name, module in MODULES.items():
        own = {"EXCHANGE_INSTANCE": name, "EXCHANGE_HEALTH_PORT": str(ports.health.get(name, 0))}
        pass_fds: tuple[int, ...] = ()
        if name == "gateway":
            own["EXCHANGE_LISTEN_FD"] = str(listener.fileno())
            pass_fds = (listener.fileno(),)
        made[name] = Program(
            name=name,
            argv=[sys.executable, "-P", "-m", module],
            log=logs / f"{name}.log",
            env=shared | own,
            pass_fds=pass_fds,
            stop_s=settings.drain_s + 2.0,
        )
    return made


def _environment(settings: Settings, servers: Servers, ports: Ports) -> dict[str, str]:
    """The settings as the daemons read them."""
    values = settings.model_dump() | {
        "postgres_url": servers.postgres_url,
        "redis_url": servers.redis_url,
        "kafka_bootstrap": servers.kafka_bootstrap,
        "port": ports.gateway,
        "orders_port": ports.orders,
        "market_data_port": ports.market_data,
        "orders_internal_port": ports.orders_internal,
        "market_data_ws_port": ports.market_data_ws,
        "orders_internal_address": f"127.0.0.1:{ports.orders_internal}",
        "market_data_address": f"127.0.0.1:{ports.market_data}",
        "market_data_ws_address": f"127.0.0.1:{ports.market_data_ws}",
        "listen_fd": -1,
    }
    return {f"EXCHANGE_{name.upper()}": str(value) for name, value in values.items()}


class Keeper:
    """One daemon, kept running until it is told to stop; `restarts` counts how often it had ended."""

    def __init__(self, program: Program, progress: Progress) -> None:
        self.program = program
        self.restarts = 0
        self.child: Child | None = None
        self._progress = progress
        self._stopping = anyio.CancelScope()
        self._stopped = anyio.Event()

    async def run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            with self._stopping:
                while True:
                    began_s = anyio.current_time()
                    await self._once(pause_s)
                    steady = anyio.current_time() - began_s > _STEADY_S
                    pause_s = _FIRST_PAUSE_S if steady else min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._stopped.set()

    def cancel(self) -> None:
        """Begin its drain; `run` returns when it has ended."""
        self._stopping.cancel()

    async def stop(self) -> None:
        """Drain it, and return when it has ended."""
        self.cancel()
        await self._stopped.wait()

    async def _once(self, pause_s: float) -> None:
        try:
            self.child = await start(self.program)
        except LocalError as error:
            ended = error.message
        else:
            try:
                ended = f"{self.program.name} ended with code {await self.child.wait()}"
            finally:
                await self.child.stop()
        self.restarts += 1
        self._progress(f"{ended}; starting it again in {pause_s:g} s (its log: {self.program.log})")
        await anyio.sleep(pause_s)


@asynccontextmanager
async def running_fleet(
    daemons: Mapping[str, Program], progress: Progress
) -> AsyncIterator[dict[str, Keeper]]:
    """All daemons while the body runs; then they drain, in their order."""
    keepers = {name: Keeper(program, progress) for name, program in daemons.items()}
    async with alone(), anyio.create_task_group() as group:
        for keeper in keepers.values():
            group.start_soon(keeper.run)
        yield keepers
        for names in _DRAIN_ORDER:
            progress(f"Draining {' and '.join(names)} ...")
            async with anyio.create_task_group() as draining:
                for name in names:
                    draining.start_soon(keepers[name].stop)
