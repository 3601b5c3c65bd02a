"""A whole exchange as real processes, on the servers of the test run but with a world of its own.

Its database, its topics and its Redis database are new. Nothing restarts its daemons but the test:
`kill`, `freeze`, `thaw`, `terminate` and `start` act on one by its name (`daemons.local.fleet.instances`).
"""

import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from anyio.from_thread import start_blocking_portal

from common.config import Settings
from common.identity.master_keys import with_own_master_key
from daemons.local.fleet import Ports, choose_ports, programs
from daemons.local.ports import free_port, listen
from daemons.local.prepare import prepare
from daemons.local.process import Program, command, tail_of
from daemons.local.servers import Servers
from tests.harness.servers import bare_settings, fresh_database

READY_S = 60.0
_STOP_S = 15.0
_REDIS_DATABASES = 256

# The checks run as ever; what a test sends is not what a person would.
LIMITS = ("limit_ip_10s", "limit_user_10s", "limit_orders_10s", "limit_orders_day")
HIGH_LIMITS = dict.fromkeys(LIMITS, 1_000_000_000) | {"max_connections_per_ip": 20_000}

_numbers = itertools.count(1)


class NotReady(AssertionError):
    """The exchange did not do in time what the test waits for; the message has the ends of the logs."""


@dataclass(frozen=True, slots=True)
class User:
    """A test user who has joined over HTTP."""

    user_id: str
    token: str
    answer: Mapping[str, object]

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class Daemon:
    """One process of the exchange under test."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self.frozen = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def crashed(self) -> bool:
        """True when it has ended and the test had no part in that."""
        return self._wanted and not self.running

    def start(self) -> None:
        assert not self.running
        self._wanted, self.frozen = True, False
        with self.program.log.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.program),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.program.env,
                pass_fds=self.program.pass_fds,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Signal it; SIGTERM and SIGKILL also say that its end is no surprise."""
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._wanted = False
        if self.running:
            os.kill(self.pid, number)
            self.frozen = number == signal.SIGSTOP or (self.frozen and number != signal.SIGCONT)

    def wait(self, within_s: float = _STOP_S) -> int:
        """Wait for its end; gives the exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(within_s)

    def end(self) -> None:
        """Let it drain; kill it when it does not."""
        if not self.running:
            return
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.wait()

    def tail(self) -> str:
        return tail_of(self.program.log)


class Exchange:
    """The handles of a test: where the exchange is, its daemons, and users."""

    def __init__(self, settings: Settings, ports: Ports, daemons: dict[str, Daemon]) -> None:
        self.settings = settings  # With this exchange's database, topics and Redis database.
        self.ports = ports
        self.daemons = daemons  # By name, in the order in which they drain.
        self.base_url = f"http://127.0.0.1:{ports.gateway}"
        self.ws_url = f"ws://127.0.0.1:{ports.gateway}/ws"
        self.orders_address = f"127.0.0.1:{ports.orders}"
        self.orders_internal_address = f"127.0.0.1:{ports.orders_internal}"
        self.market_data_address = f"127.0.0.1:{ports.market_data}"
        self.http = httpx.Client(base_url=self.base_url, timeout=10, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        for daemon in self.daemons.values():
            daemon.end()

    def start(self, *names: str) -> None:
        """Start these daemons, or all; do not wait."""
        for name in names or self.daemons:
            self.daemons[name].start()

    def kill(self, name: str) -> None:
        """kill -9, and it has ended when this returns."""
        self.daemons[name].signal(signal.SIGKILL)
        self.daemons[name].wait()

    def terminate(self, name: str) -> int:
        """SIGTERM; gives the exit code of the drain."""
        self.daemons[name].signal(signal.SIGTERM)
        return self.daemons[name].wait()

    def restart(self, name: str) -> None:
        """kill -9, start, and wait until an order would be accepted."""
        self.kill(name)
        self.start(name)
        self.wait_ready()

    def freeze(self, name: str) -> None:
        self.daemons[name].signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self.daemons[name].signal(signal.SIGCONT)

    def is_ready(self) -> bool:
        """What GET /readyz says: an order would be accepted now."""
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def wait_ready(self, within_s: float = READY_S) -> None:
        """Until an order would be accepted and each running daemon says that it is ready.

        Raises NotReady with the ends of the logs, at once when a daemon has ended by itself.
        """
        deadline_s = time.monotonic() + within_s
        while not (self.is_ready() and all(map(self._is_daemon_ready, self.ports.health))):
            if any(daemon.crashed for daemon in self.daemons.values()):
                raise NotReady(f"a daemon ended by itself\n{self.tails()}")
            if time.monotonic() > deadline_s:
                raise NotReady(f"not ready within {within_s:g} s\n{self.tails()}")
            time.sleep(0.05)

    def _is_daemon_ready(self, name: str) -> bool:
        if not self.daemons[name].running or self.daemons[name].frozen:
            return True  # By the test's will.
        try:
            return self.http.get(f"http://127.0.0.1:{self.ports.health[name]}/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def metrics(self, name: str) -> dict[str, float]:
        """What a daemon counts now: by sample, as Prometheus writes it: `name{label="value"}` or `name`."""
        response = self.http.get(f"http://127.0.0.1:{self.ports.health[name]}/metrics")
        assert response.status_code == 200, response.text
        lines = (line for line in response.text.splitlines() if line and not line.startswith("#"))
        return {sample: float(value) for sample, _, value in (line.rpartition(" ") for line in lines)}

    def join(self) -> User:
        """A new user with test balances."""
        response = self.http.post("/api/v1/test/join")
        assert response.status_code == 201, response.text
        answer = response.json()
        return User(str(answer["user_id"]), str(answer["token"]), answer)

    def tails(self) -> str:
        """The end of each daemon's log, for a failure's message."""
        return "\n".join(
            f"---- {name} ({'running' if daemon.running else 'ended'})\n{daemon.tail()}"
            for name, daemon in self.daemons.items()
        )


@contextmanager
def running_exchange(
    servers: Servers, logs: Path, *, ready: bool = True, **settings: object
) -> Iterator[Exchange]:
    """An exchange while the body runs; `settings` changes fields of `common.config.Settings`.

    Several of a kind: `gateways`, `order_services`, `matchings`, `market_datas`.
    With `ready` False no daemon is started: the test does it. The limits are out of reach.
    """
    number = next(_numbers)
    with fresh_database(servers) as url, listen("127.0.0.1", free_port(), "EXCHANGE_PORT") as listener:
        redis_url = f"{servers.redis_url.rpartition('/')[0]}/{number % _REDIS_DATABASES}"
        own = {"postgres_url": url, "redis_url": redis_url, "kafka_bootstrap": servers.kafka_bootstrap}
        prefix = {"topic_prefix": f"test-{os.getpid()}-{number}", "local_mode": True}
        with _exchange(bare_settings(**(own | prefix | HIGH_LIMITS | settings)), logs, listener) as exchange:
            if ready:
                exchange.start()
                exchange.wait_ready()
            yield exchange


@contextmanager
def _exchange(settings: Settings, logs: Path, listener: socket.socket) -> Iterator[Exchange]:
    with start_blocking_portal() as portal:
        portal.call(prepare, settings, print)
    settings = with_own_master_key(settings, logs)
    ports = choose_ports(settings, listener.getsockname()[1])
    where = Servers(settings.postgres_url, settings.redis_url, settings.kafka_bootstrap)
    made = programs(settings, where, ports, logs, listener)
    with Exchange(settings, ports, {name: Daemon(program) for name, program in made.items()}) as exchange:
        yield exchange
