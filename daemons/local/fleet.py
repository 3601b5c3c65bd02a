"""The daemons of the local exchange: what each is started with, their restarts, the order of their drain.

A daemon that ends is started again, after a pause that doubles while it keeps ending. All share one
environment, in which only the instance, its own ports and the inherited socket differ.
"""

import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc

from common.config import Settings
from common.tls import Role, internal_tls, public_credentials
from daemons.local.certs import certificate_settings
from daemons.local.ports import free_port, listen, preferred_port
from daemons.local.process import Child, LocalError, Program, Progress, alone, start
from daemons.local.servers import Servers

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STEADY_S = 0.5, 10.0, 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A daemon that may run several times. `ports` are the settings that each instance has its own of."""

    name: str
    module: str
    count: str  # The setting that says how many.
    ports: tuple[str, ...] = ()

    def instances(self, settings: Settings) -> list[str]:
        """The first is named like the kind; matchings, of which there are always several, by numbers."""
        first = f"{self.name}-1" if self.name == "matching" else self.name
        return [first, *(f"{self.name}-{number + 1}" for number in range(1, getattr(settings, self.count)))]


# In the order in which they drain: who takes orders in ends before who carries them out.
KINDS = (
    Kind("gateway", "gateway", "gateways"),
    Kind(
        "order-service",
        "daemons.order_service",
        "order_services",
        ("orders_port", "orders_internal_port", "admin_port"),
    ),
    Kind("matching", "daemons.matching", "matchings"),
    Kind(
        "market-data",
        "daemons.market_data",
        "market_datas",
        ("market_data_port", "market_data_ws_port", "market_data_internal_port"),
    ),
)


def instances(settings: Settings) -> dict[str, Kind]:
    """Every daemon by its name, in the order in which they drain."""
    return {name: kind for kind in KINDS for name in kind.instances(settings)}


# What runs when nobody asks for more: name -> module.
MODULES = {name: kind.module for name, kind in instances(Settings.model_construct()).items()}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything listens: the gateways' one port, and by instance and setting what each has alone."""

    gateway: int
    own: Mapping[str, Mapping[str, int]]

    def of(self, setting: str) -> list[int]:
        """The ports of all instances that have one for this setting."""
        return [ports[setting] for ports in self.own.values() if setting in ports]

    def addresses(self, setting: str, host: str = "127.0.0.1") -> str:
        """All of them, as the settings ending in `_address` want them."""
        return ",".join(f"{host}:{port}" for port in self.of(setting))

    @property
    def health(self) -> dict[str, int]:
        return {name: ports["health_port"] for name, ports in self.own.items()}

    @property
    def orders(self) -> int:
        """The first order-service's public gRPC."""
        return self.of("orders_port")[0]

    @property
    def orders_internal(self) -> int:
        return self.of("orders_internal_port")[0]

    @property
    def market_data(self) -> int:
        """The first market-data's public gRPC."""
        return self.of("market_data_port")[0]


def choose_ports(settings: Settings, gateway: int) -> Ports:
    """The first public gRPC ports are those that the settings name, or else follow the gateway's where free.

    Raises PortTaken for a named one that is taken.
    """
    public = {
        "orders_port": _public_port(settings, "orders_port", gateway + 1),
        "market_data_port": _public_port(settings, "market_data_port", gateway + 2),
    }
    own: dict[str, dict[str, int]] = {}
    for name, kind in instances(settings).items():
        own[name] = {setting: public.pop(setting, 0) or free_port() for setting in kind.ports}
        own[name]["health_port"] = free_port()
    return Ports(gateway, own)


def _public_port(settings: Settings, name: str, otherwise: int) -> int:
    if name not in settings.model_fields_set:
        return preferred_port(otherwise, settings.host)
    port = int(getattr(settings, name))
    listen(settings.host, port, f"EXCHANGE_{name.upper()}").close()
    return port


def programs(
    settings: Settings, servers: Servers, ports: Ports, logs: Path, listener: socket.socket
) -> dict[str, Program]:
    """What to run for each daemon, by name. The gateways inherit `listener`, which outlives them."""
    shared = os.environ | _variables(_shared(settings, servers, ports))
    made = {}
    for name, kind in instances(settings).items():
        own: dict[str, object] = {"instance": name, **ports.own[name], **_certificate(settings, kind)}
        if kind.name != "order-service":  # Who has no use for the keys of the vault is not told them.
            own |= {"master_keys": "", "master_keys_file": ""}
        pass_fds: tuple[int, ...] = ()
        if kind.name == "gateway":
            own["listen_fd"] = listener.fileno()
            pass_fds = (listener.fileno(),)
        made[name] = Program(
            name=name,
            argv=[sys.executable, "-P", "-m", kind.module],
            log=logs / f"{name}.log",
            env=shared | _variables(own),
            pass_fds=pass_fds,
            stop_s=settings.drain_s + 2.0,
        )
    return made


def _shared(settings: Settings, servers: Servers, ports: Ports) -> dict[str, object]:
    """What all daemons read alike."""
    return settings.model_dump() | {
        "postgres_url": servers.postgres_url,
        "redis_url": servers.redis_url,
        "kafka_bootstrap": servers.kafka_bootstrap,
        "port": ports.gateway,
        "orders_internal_address": ports.addresses("orders_internal_port"),
        "market_data_address": ports.addresses("market_data_internal_port"),
        "market_data_ws_address": ports.addresses("market_data_ws_port"),
        "market_data_internal_address": ports.addresses("market_data_internal_port"),
        "listen_fd": -1,
    }


def check_certificates(settings: Settings) -> None:
    """Raises BadSetting for what a daemon would refuse to start with."""
    for kind in KINDS:
        own = settings.model_copy(update=_certificate(settings, kind))
        internal_tls(own, Role(kind.name))
    public_credentials(settings)


def _certificate(settings: Settings, kind: Kind) -> dict[str, object]:
    """Of `exchange certs`, where its folder is named; roles are named like the daemons."""
    folder = settings.tls_dir
    return certificate_settings(Path(folder), Role(kind.name)) if folder else {}


def _variables(values: Mapping[str, object]) -> dict[str, str]:
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
        self._started = anyio.Event()
        self._wanted_again = False

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

    async def restart(self) -> None:
        """Drain it and start it again without a pause; returns when it has been started."""
        started = self._started
        if self.child is not None:
            self._wanted_again = True
            await self.child.stop()
        await started.wait()

    async def _once(self, pause_s: float) -> None:
        self._wanted_again = False
        try:
            self.child = await start(self.program)
            self._started.set()
            self._started = anyio.Event()
        except LocalError as error:
            ended = error.message
        else:
            try:
                ended = f"{self.program.name} ended with code {await self.child.wait()}"
            finally:
                await self.child.stop()
        if self._wanted_again:
            return
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
        for kind in KINDS:
            ending = [keeper for keeper in keepers.values() if keeper.program.argv[-1] == kind.module]
            progress(f"Draining {' and '.join(keeper.program.name for keeper in ending)} ...")
            async with anyio.create_task_group() as draining:
                for keeper in ending:
                    draining.start_soon(keeper.stop)
