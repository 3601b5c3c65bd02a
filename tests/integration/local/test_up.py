"""`exchange up` as a person meets it: a process that says where it is, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from daemons.local.ports import free_port
from daemons.local.record import Run, read_run
from daemons.local.servers import Servers

_OPEN = re.compile(r"The exchange is open: (http://\S+)")
_START_S, _STOP_S = 90.0, 60.0
_COMMAND = [sys.executable, "-P", "-m", "daemons.local.cli"]


class Up:
    """A running `exchange up`, and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], data: Path, output: Path) -> None:
        self.process = process
        self.data = data
        self._output = output

    @property
    def output(self) -> str:
        return self._output.read_text()

    def url(self) -> str:
        """Wait until it says that it is open."""
        _until(lambda: self.process.poll() is not None or _OPEN.search(self.output), _START_S, self)
        found = _OPEN.search(self.output)
        assert found, self.output
        return found[1]

    def run(self) -> Run:
        found = read_run(self.data)
        assert found is not None
        return found

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def daemon(self, module: str) -> psutil.Process:
        """The process of the first daemon that runs this module."""
        return next(child for child in self.family() if module in child.cmdline())

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(_STOP_S)


def _until(true: Callable[[], object], within_s: float, up: Up) -> None:
    deadline_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline_s, up.output
        time.sleep(0.05)


@contextmanager
def _up(data: Path, *arguments: str, servers: Servers | None = None) -> Iterator[Up]:
    """`exchange up` on `data`; with `servers`, on those instead of its own."""
    output = data.parent / f"{data.name}.output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [*_COMMAND, "up", "--data", str(data), "--port", str(free_port()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            env=_environment(servers),
            start_new_session=True,
        )
    up = Up(process, data, output)
    try:
        yield up
    finally:
        if process.poll() is None:
            up.end(signal.SIGTERM)


def _environment(servers: Servers | None) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EXCHANGE_")}
    if servers is None:
        return plain
    return plain | {
        "EXCHANGE_POSTGRES_URL": servers.postgres_url,
        "EXCHANGE_REDIS_URL": servers.redis_url,
        "EXCHANGE_KAFKA_BOOTSTRAP": servers.kafka_bootstrap,
        # A database of one's own needs topics of one's own.
        "EXCHANGE_TOPIC_PREFIX": "up-" + servers.postgres_url.rpartition("/")[2].replace("_", "-"),
    }


def _exchange(
    data: Path, *arguments: str, servers: Servers | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_COMMAND, *arguments, "--data", str(data)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=_environment(servers),
        timeout=60,
    )


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that only its owner may enter."""
    folder = tmp_path_factory.mktemp("closed")
    folder.chmod(0o700)
    return folder


@pytest.fixture
def own_world(servers: Servers, database: str) -> Servers:
    """The servers of the test run, with a database of this test's own."""
    return Servers(database, servers.redis_url, servers.kafka_bootstrap)


def test_the_audit_shows_the_rows_that_break_a_rule(tmp_path: Path, own_world: Servers) -> None:
    migrated = _exchange(tmp_path / "data", "migrate", servers=own_world)
    assert migrated.returncode == 0, migrated
    assert "Applied 0001" in migrated.stdout
    assert _exchange(tmp_path / "data", "audit", servers=own_world).returncode == 0
    with psycopg.connect(own_world.postgres_url) as connection:
        connection.execute("INSERT INTO ledger (kind, user_id, asset_id, delta_atoms) VALUES (1, 1001, 1, 5)")
    audited = _exchange(tmp_path / "data", "audit", servers=own_world)
    assert audited.returncode == 1
    assert "VIOLATED  every asset sums to zero in the ledger" in audited.stdout
    assert "asset_id 1, sum 5" in audited.stdout


def test_from_nothing_to_an_order_and_back_to_nothing(closed: Path) -> None:
    modes = [folder.stat() for folder in closed.parents]
    data = closed / "fresh"
    with _up(data) as up:
        url = up.url()
        order_id, headers = _place_an_order(url)
        _second_up_is_refused(data)
        _status_shows_it_all(data, url)
        _operator_commands_reach_it(data)
        family = up.family()
        assert len(family) >= 8, "three servers and five daemons"
        assert up.end(signal.SIGINT) == 0, up.output
        assert not _alive(family), up.output
    drained = re.findall(r"Draining (\S+)", up.output)
    assert drained == ["gateway", "order-service", "matching-1", "market-data"]
    assert [(folder.st_mode, folder.st_uid) for folder in modes] == [
        (folder.stat().st_mode, folder.stat().st_uid) for folder in closed.parents
    ]
    assert not list(data.glob("run.json*"))
    assert stat.S_IMODE((data / "master.key").stat().st_mode) == 0o600
    listed = _exchange(data, "market", "list")
    assert listed.stdout.count("ACTIVE") == 1, listed
    with _up(data) as again:
        found = httpx.get(f"{again.url()}/api/v1/orders/{order_id}", headers=headers, trust_env=False)
        assert found.json()["status"] == "OPEN"
        family = again.family()
        again.process.kill()
        again.process.wait()
        _until(lambda: not _alive(family), 20, again)


def test_a_signal_during_the_start_ends_it_at_once(closed: Path) -> None:
    with _up(closed / "interrupted") as up:
        _until(lambda: "..." in up.output and up.family(), 20, up)
        family = up.family()
        assert up.end(signal.SIGTERM) == 0, up.output
        assert not _alive(family)
    assert "The exchange is open" not in up.output


def _alive(family: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run; one that has ended and waits to be reaped by init does not."""
    alive = []
    for child in family:
        with suppress(psutil.NoSuchProcess):
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                alive.append(child)
    return alive


def _place_an_order(url: str) -> tuple[str, dict[str, str]]:
    with httpx.Client(base_url=url, trust_env=False) as client:
        joined = client.post("/api/v1/test/join")
        assert joined.status_code == 201, joined.text
        headers = {"Authorization": f"Bearer {joined.json()['token']}"}
        order = {"symbol": "BTC-USD", "side": "BUY", "type": "LIMIT", "price": "100.00", "quantity": "0.5"}
        placed = client.post("/api/v1/orders", json=order, headers=headers)
        assert placed.status_code == 202, placed.text
        return placed.json()["order_id"], headers


def _second_up_is_refused(data: Path) -> None:
    second = _exchange(data, "up", "--port", "0")
    assert second.returncode == 1
    assert "Another `exchange up` runs on" in second.stderr


def _status_shows_it_all(data: Path, url: str) -> None:
    for_people = _exchange(data, "status")
    assert for_people.returncode == 0, for_people
    assert url in for_people.stdout
    status = json.loads(_exchange(data, "status", "--json").stdout)
    assert status["ready"]
    assert {part["name"] for part in status["daemons"] if part["ready"]} >= {"gateway", "order-service"}
    assert {leader["service"] for leader in status["leaders"]} >= {"matching"}
    assert all(leader["fencing_token"] >= 1 for leader in status["leaders"])
    assert len(status["partitions"]) == 4
    assert all(not row["stopped"] for row in status["partitions"])


def _operator_commands_reach_it(data: Path) -> None:
    assert "BTC-USD" in _exchange(data, "market", "list").stdout
    assert _exchange(data, "market", "halt", "ETH-USD").returncode == 0
    user_id = _exchange(data, "user", "create", "a person").stdout.strip()
    assert _exchange(data, "user", "deposit", user_id, "USD", "12.5", "--reference", "r1").returncode == 0
    token = _exchange(data, "user", "token", user_id).stdout.strip()
    run = read_run(data)
    assert run is not None
    accounts = httpx.get(
        f"{run.url}/api/v1/accounts", headers={"Authorization": f"Bearer {token}"}, trust_env=False
    )
    assert {"asset": "USD", "available": "12.5", "held": "0"} in accounts.json()
    assert "1 tokens" in _exchange(data, "user", "revoke", user_id).stdout
    unknown = _exchange(data, "user", "token", "999999")
    assert unknown.returncode == 1
    assert "There is no user" in unknown.stderr


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = _exchange(tmp_path / "data", "up", "--port", str(port))
    assert refused.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in refused.stderr
    assert "EXCHANGE_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_external_server_that_is_away_is_named(tmp_path: Path) -> None:
    nobody = free_port()
    away = Servers(f"postgresql://127.0.0.1:{nobody}/x", f"redis://127.0.0.1:{nobody}", f"127.0.0.1:{nobody}")
    with _up(tmp_path / "data", servers=away) as up:
        assert up.process.wait(30) == 1
    assert "EXCHANGE_POSTGRES_URL" in up.output
    assert "Traceback" not in up.output


def test_a_killed_daemon_is_started_again(tmp_path: Path, own_world: Servers) -> None:
    with _up(tmp_path / "data", servers=own_world) as up:
        url = up.url()
        for module in ("gateway", "daemons.order_service"):
            first = up.daemon(module)
            first.kill()
            first.wait(10)
            _until(partial(_runs, up, module), 20, up)
            _until(lambda: _is_ready(url), 30, up)
        assert "gateway ended with code -9; starting it again in 0.5 s" in up.output
        _place_an_order(url)


def test_daemons_are_restarted_one_after_the_other(tmp_path: Path, own_world: Servers) -> None:
    data = tmp_path / "data"
    closed = _exchange(data, "restart", servers=own_world)
    assert (closed.returncode, closed.stderr) == (1, f"No exchange runs on {data}\n")
    with _up(data, servers=own_world) as up:
        url = up.url()
        before = {module: up.daemon(module).pid for module in ("gateway", "daemons.order_service")}
        unknown = _exchange(data, "restart", "engine", servers=own_world)
        assert unknown.returncode == 1
        assert "There is no daemon engine; there are gateway, " in unknown.stderr
        restarted = _exchange(data, "restart", "order-service", servers=own_world)
        assert (restarted.returncode, restarted.stderr) == (0, "")
        assert up.daemon("gateway").pid == before["gateway"]
        assert up.daemon("daemons.order_service").pid != before["daemons.order_service"]
        _place_an_order(url)
        assert "starting it again" not in up.output
        assert up.end(signal.SIGTERM) == 0, up.output


def _runs(up: Up, module: str) -> bool:
    return any(module in child.cmdline() for child in up.family() if child.is_running())


def _trades(query: str) -> list[object]:
    found = httpx.get(query, trust_env=False).json()
    assert isinstance(found, list)
    return found


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def test_the_demo_trades_both_markets(tmp_path: Path, own_world: Servers) -> None:
    with _up(tmp_path / "data", "--demo", servers=own_world) as up:
        url = up.url()
        for symbol in ("BTC-USD", "ETH-USD"):
            query = f"{url}/api/v1/trades?symbol={symbol}"
            _until(partial(_trades, query), 60, up)
        audited = _exchange(tmp_path / "data", "audit", servers=own_world)
        assert audited.returncode == 0, audited
        assert "VIOLATED" not in audited.stdout
        assert up.end(signal.SIGTERM) == 0, up.output
    with psycopg.connect(own_world.postgres_url) as connection:
        row = connection.execute("SELECT count(*) FROM users WHERE user_id > 0").fetchone()
    assert row == (2,)
