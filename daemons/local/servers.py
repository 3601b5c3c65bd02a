"""PostgreSQL, Valkey and Kafka: started in parallel, started again when one dies, stopped together.

Each that the settings name is somebody else's, and is left alone.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.abc

from common.config import Settings
from daemons.local.kafka import embedded_kafka
from daemons.local.ports import free_port
from daemons.local.postgres import embedded_postgres
from daemons.local.process import Child, LocalError, Progress, alone
from daemons.local.valkey import embedded_valkey

Server = Callable[[], AbstractAsyncContextManager[tuple[str, Child]]]

_AGAIN_S = 1.0


@dataclass(slots=True)
class Servers:
    """Where the three are. `children` holds the processes that are ours, by name, as they now run."""

    postgres_url: str = ""
    redis_url: str = ""
    kafka_bootstrap: str = ""
    children: dict[str, Child] = field(default_factory=dict)


@asynccontextmanager
async def running_servers(data: Path, settings: Settings, progress: Progress) -> AsyncIterator[Servers]:
    """The three while the body runs, under the absolute folder `data`, which is there.

    Raises LocalError when one cannot be had.
    """
    assert data.is_absolute()
    servers = Servers(settings.postgres_url, settings.redis_url, settings.kafka_bootstrap)
    async with alone(), anyio.create_task_group() as keeping:
        try:
            async with anyio.create_task_group() as starting:
                for name, server in _ours(settings, data, progress).items():
                    starting.start_soon(keeping.start, partial(_keep, servers, name, server, progress))
            yield servers
        finally:
            keeping.cancel_scope.cancel()


def _ours(settings: Settings, data: Path, progress: Progress) -> dict[str, Server]:
    """The servers to run, by the name of the setting that would replace each."""
    ours: dict[str, Server] = {}
    if not settings.kafka_bootstrap:  # The slowest first.
        ours["kafka_bootstrap"] = partial(embedded_kafka, data, free_port(), free_port(), progress)
    if not settings.postgres_url:
        ours["postgres_url"] = partial(embedded_postgres, data, free_port(), progress)
    if not settings.redis_url:
        ours["redis_url"] = partial(embedded_valkey, data, free_port(), progress)
    return ours


async def _keep(
    servers: Servers,
    name: str,
    server: Server,
    progress: Progress,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """Run it until canceled. A failing first start is raised; a later one is tried again."""
    started = False
    while True:
        try:
            async with server() as (url, child):
                setattr(servers, name, url)
                servers.children[name] = child
                if not started:
                    task_status.started()
                    started = True
                code = await child.wait()
                progress(f"{child.program.name} ended with code {code}; starting it again")
        except LocalError as error:
            if not started:
                raise
            progress(error.message)
        await anyio.sleep(_AGAIN_S)
