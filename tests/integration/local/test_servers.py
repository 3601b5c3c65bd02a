"""The embedded servers: they answer, they end with us, and a failure says why."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psutil
import psycopg
import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient

from daemons.local.kafka_jars import kafka_jars
from daemons.local.ports import PortTaken, free_port, listen
from daemons.local.postgres import embedded_postgres
from daemons.local.process import DidNotComeUp, LocalError, Program, start, until_up
from daemons.local.servers import Servers, running_servers
from daemons.local.valkey import embedded_valkey
from tests.harness.servers import bare_settings

pytestmark = pytest.mark.anyio


async def test_all_three_answer(servers: Servers, database: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT current_setting('fsync'), current_setting('server_version_num')"
        ).fetchone()
    assert row is not None
    assert row[0] == "on"
    assert int(row[1]) >= 150_000
    assert redis.Redis.from_url(servers.redis_url).ping()
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka_bootstrap)
    await admin.start()
    try:
        assert (await admin.describe_cluster())["brokers"]
    finally:
        await admin.close()


async def test_a_password_is_needed(servers: Servers) -> None:
    address = servers.postgres_url.rpartition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://exchange@{address}")
    address = servers.redis_url.rpartition("@")[2]
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(f"redis://{address}").ping()


async def test_postgres_keeps_its_data_and_touches_no_folder_above(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    data = closed / ("a rather long name, longer than a socket's path may be " * 3) / "data"
    data.mkdir(parents=True)
    closed.chmod(0o700)
    above = [data, *data.parents]
    before = [_owner_and_mode(folder) for folder in above]
    lines: list[str] = []
    async with embedded_postgres(data, free_port(), lines.append) as (url, _):
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    async with embedded_postgres(data, free_port(), lines.append) as (url, child):
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert (psutil.Process(child.pid).uids().effective == 0) is False
    assert [_owner_and_mode(folder) for folder in above] == before
    assert _owner_and_mode(data / "postgres.password")[2] == 0o600
    assert sum("creating" in line for line in lines) == 1


def _owner_and_mode(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


async def test_a_server_that_dies_is_started_again_where_it_was(tmp_path: Path, servers: Servers) -> None:
    settings = bare_settings(kafka_bootstrap="elsewhere:1", postgres_url="postgresql://elsewhere")
    lines: list[str] = []
    async with running_servers(tmp_path, settings, lines.append) as own:
        assert set(own.children) == {"redis_url"}
        first = own.children["redis_url"].pid
        os.kill(first, signal.SIGKILL)
        with anyio.fail_after(20):
            while own.children["redis_url"].pid == first:
                await anyio.sleep(0.05)
        assert redis.Redis.from_url(own.redis_url).ping()
    assert any("starting it again" in line for line in lines)


async def test_a_server_that_does_not_come_up_shows_the_end_of_its_log(tmp_path: Path) -> None:
    port = free_port()
    with (
        listen("127.0.0.1", port, "EXCHANGE_PORT"),
        pytest.raises(DidNotComeUp, match="Address already in use"),
    ):
        async with embedded_valkey(tmp_path, port, print):
            pass


async def test_a_silent_server_is_given_up_and_ended(tmp_path: Path) -> None:
    child = await start(Program("Silent", ["sleep", "600"], tmp_path / "silent.log"))

    async def answers() -> bool:
        return False

    try:
        with pytest.raises(DidNotComeUp, match=r"Silent did not come up: it gave no answer within 0 s"):
            await until_up(child, answers, 0.2)
    finally:
        await child.stop()
    assert child.returncode == -signal.SIGTERM


async def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 1; done"
    child = await start(Program("Stubborn", ["sh", "-c", script], tmp_path / "log", stop_s=0.2))
    with anyio.fail_after(10):
        while "ready" not in child.tail():
            await anyio.sleep(0.02)
    await child.stop()
    assert child.returncode == -signal.SIGKILL


async def test_without_maven_the_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jars.sha256").write_text("00  kafka.jar\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LocalError, match="install Maven and a JDK"):
        await kafka_jars(tmp_path, print, deploy=tmp_path)


async def test_what_maven_fetched_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jars.sha256").write_text(f"{'0' * 64}  kafka.jar\n")
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in -DoutputDirectory=*)\n'
        'mkdir -p "${word#*=}"; echo other > "${word#*=}/kafka.jar";; esac; done\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}:{os.environ['PATH']}")
    with pytest.raises(LocalError, match="is not what"):
        await kafka_jars(tmp_path, print, deploy=tmp_path)
    assert not (tmp_path / "libs").exists()


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    port = free_port()
    with (
        listen("127.0.0.1", port, "EXCHANGE_PORT"),
        pytest.raises(PortTaken, match=rf"Port {port} .* EXCHANGE_PORT"),
    ):
        listen("127.0.0.1", port, "EXCHANGE_PORT")


def test_the_servers_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    script = """
import anyio, sys
from pathlib import Path
from daemons.local.servers import running_servers
from tests.harness.servers import bare_settings

async def main():
    settings = bare_settings(kafka_bootstrap="elsewhere:1")
    async with running_servers(Path(sys.argv[1]), settings, lambda line: None) as servers:
        print(*(child.pid for child in servers.children.values()), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        children = [psutil.Process(int(pid)) for pid in starter.stdout.readline().split()]
        assert len(children) == 2
        starter.kill()
    deadline_s = time.monotonic() + 20
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < deadline_s, "a server outlived its starter"
        time.sleep(0.05)
