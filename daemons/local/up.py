"""`exchange up`: servers, schema, daemons, and one line with the URL when an order would be accepted.

The blocks nest: lock and port > servers > daemons > serving. The first Ctrl-C or SIGTERM leaves them from
the inside out, which is the drain; during the start, or a second time, it leaves them at once.
"""

import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from os import getpid
from pathlib import Path

import anyio
import httpx
import psycopg
from aiokafka.errors import KafkaError

from common.config import Settings, is_loopback
from common.identity.master_keys import with_own_master_key
from daemons.local.fleet import Keeper, check_certificates, choose_ports, programs, running_fleet
from daemons.local.ports import listen
from daemons.local.prepare import prepare
from daemons.local.process import DidNotComeUp, LocalError, Program, Progress, alone, tail_of
from daemons.local.record import Run, locked, recorded
from daemons.local.rolling import forget_restarts, heeding_restarts
from daemons.local.servers import Servers, running_servers
from daemons.local.status import Part, ask_daemons, http_client

_READY_S = 60.0
_HOPELESS_RESTARTS = 3
_ASK_AGAIN_S = 0.1

Signals = AbstractContextManager[AsyncIterator[signal.Signals]]


class Stop:
    """Whether and how to end: `asked` is the drain; before `serving`, or a second time, at once."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.serving = False
        self.everything = anyio.CancelScope()

    async def heed(self, received: AsyncIterator[signal.Signals], progress: Progress) -> None:
        async for number in received:
            if self.serving and not self.asked.is_set():
                progress(f"{number.name}: draining (once more ends it at once) ...")
                self.asked.set()
            else:
                progress(f"{number.name}: ending at once ...")
                self.asked.set()
                self.everything.cancel()


async def up(settings: Settings, *, demo: bool, progress: Progress) -> None:
    """Run until a signal. Raises LocalError or BadSetting with a sentence when something cannot work."""
    data = Path(settings.data)
    settings = settings.model_copy(update={"local_mode": is_loopback(settings.host)})
    check_certificates(settings)
    stop = Stop()
    async with alone(), anyio.create_task_group() as group:
        with anyio.open_signal_receiver(*_ending_signals()) as received:
            group.start_soon(stop.heed, received, progress)
            with (
                stop.everything,
                locked(data),
                listen(settings.host, settings.port, "--port or EXCHANGE_PORT") as listener,
            ):
                forget_restarts(data)  # Else one asked for now would be signaled before it is heeded.
                if settings.local_mode:
                    settings = with_own_master_key(settings, data)
                async with running_servers(data, settings, progress) as servers:
                    await _prepared(_with(settings, servers), progress)
                    await _serve(settings, servers, data, listener, stop, demo, progress)
            group.cancel_scope.cancel()
    progress("Everything has ended.")


def _ending_signals() -> list[signal.Signals]:
    """A closed terminal ends it too, unless somebody said not to (nohup)."""
    closed = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *closed]


async def _serve(
    settings: Settings,
    servers: Servers,
    data: Path,
    listener: socket.socket,
    stop: Stop,
    demo: bool,
    progress: Progress,
) -> None:
    ports = choose_ports(settings, listener.getsockname()[1])
    url = f"http://{_in_url(settings.host)}:{ports.gateway}"
    run = Run(
        pid=getpid(),
        url=url,
        host=settings.host,
        postgres_url=servers.postgres_url,
        redis_url=servers.redis_url,
        kafka_bootstrap=servers.kafka_bootstrap,
        topic_prefix=settings.topic_prefix,
        ports=ports,
    )
    daemons = programs(settings, servers, ports, data / "logs", listener)
    with recorded(data, run):
        progress(f"Starting the daemons: {', '.join(daemons)} ...")
        async with running_fleet(daemons, progress) as keepers:
            await _until_ready(run, keepers)
            progress(f"The exchange is open: {url}")
            stop.serving = True
            async with (
                http_client() as client,
                heeding_restarts(keepers, data, partial(_is_ready, client, run), progress),
                _demo(demo, url, data, progress),
            ):
                await stop.asked.wait()


@asynccontextmanager
async def _demo(wanted: bool, url: str, data: Path, progress: Progress) -> AsyncIterator[None]:
    """The bots, while the body runs: they end before the gateway drains."""
    if not wanted:
        yield
        return
    keeper = Keeper(
        Program(
            name="demo",
            argv=[sys.executable, "-P", "-m", "daemons.local.demo", url, str(data / "demo.json")],
            log=data / "logs" / "demo.log",
            stop_s=3.0,
        ),
        progress,
    )
    async with alone(), anyio.create_task_group() as group:
        group.start_soon(keeper.run)
        progress("Two demo bots trade on it; leave them out with `exchange up` or `make up DEMO=`")
        yield
        await keeper.stop()


async def _prepared(settings: Settings, progress: Progress) -> None:
    """`prepare`, whose errors here are about servers of somebody else."""
    try:
        await prepare(settings, progress)
    except psycopg.OperationalError as error:
        raise LocalError(f"PostgreSQL (EXCHANGE_POSTGRES_URL) does not serve us: {error}") from error
    except KafkaError as error:
        raise LocalError(f"Kafka (EXCHANGE_KAFKA_BOOTSTRAP) does not serve us: {error}") from error


async def _until_ready(run: Run, keepers: dict[str, Keeper]) -> None:
    """Until /readyz says that an order would be accepted, and every other daemon is there to carry it out.

    Raises DidNotComeUp with what is missing and the ends of the logs.
    """
    parts: list[Part] = []
    async with http_client() as client:
        with anyio.move_on_after(_READY_S):
            while all(keeper.restarts < _HOPELESS_RESTARTS for keeper in keepers.values()):
                parts = await ask_daemons(client, run)
                if all(part.ready for part in parts):
                    return
                await anyio.sleep(_ASK_AGAIN_S)  # Other processes: there is no event to wait for.
    missing = [part for part in parts if not part.ready]
    lines = [f"{part.name} {part.detail or 'is not ready'}" for part in missing]
    for part in missing:
        log = keepers[part.name].program.log
        lines.append(f"---- the end of {log}\n{tail_of(log)}")
    raise DidNotComeUp("\n".join(["The exchange did not get ready:", *lines]))


async def _is_ready(client: httpx.AsyncClient, run: Run, name: str) -> bool:
    """Of this daemon, and of a gateway: an order would be accepted."""
    parts = await ask_daemons(client, run)
    gateways = [part.ready for part in parts if part.name.startswith("gateway")]
    return any(gateways) and all(part.ready for part in parts if part.name == name)


def _with(settings: Settings, servers: Servers) -> Settings:
    where = {name: getattr(servers, name) for name in ("postgres_url", "redis_url", "kafka_bootstrap")}
    return settings.model_copy(update=where)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
