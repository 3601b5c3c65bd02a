"""`exchange status`: which daemons are ready, who leads what, and how far settling is behind.

It reads PostgreSQL and asks each daemon's /readyz; it changes nothing and works while parts are down.
"""

import json
from dataclasses import asdict, dataclass, field

import anyio
import httpx
from psycopg.rows import class_row

from common.db import connect
from daemons.local.record import Run

_ASK_S = 2.0

_LEADERS = """
SELECT service, partition, holder, fencing_token, expires_at > clock_timestamp() AS live
FROM partition_leader_locks ORDER BY service, partition
"""
_PARTITIONS = """
SELECT s.partition, s.last_sequence AS accepted, c.next_sequence - 1 AS published, w.sequence AS settled,
       (SELECT count(*) FROM outbox o WHERE o.partition = s.partition) AS outbox_rows,
       coalesce(w.stopped, '') AS stopped
FROM shards s JOIN watermarks w USING (partition) JOIN relay_cursors c USING (partition)
ORDER BY s.partition
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One daemon, as its /readyz says."""

    name: str
    ready: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Leader:
    """Who holds, or last held, a lease; `live` is false when it has expired."""

    service: str
    partition: int
    holder: str
    fencing_token: int
    live: bool


@dataclass(frozen=True, slots=True)
class Partition:
    """Sequences: accepted by TX1, published by the relay, settled by TX2 (the watermark)."""

    partition: int
    accepted: int
    published: int
    settled: int
    outbox_rows: int
    stopped: str

    @property
    def lag(self) -> int:
        """Commands accepted and not settled yet."""
        return self.accepted - self.settled


@dataclass(slots=True)
class Status:
    """`ready` is the answer of the gateways: an order would be accepted now, by one of them at least."""

    ready: bool = False
    url: str = ""
    orders_grpc: str = ""
    market_data_grpc: str = ""
    daemons: list[Part] = field(default_factory=list)
    leaders: list[Leader] = field(default_factory=list)
    partitions: list[Partition] = field(default_factory=list)
    problem: str = ""


async def read_status(run: Run | None, postgres_url: str) -> Status:
    """Ask everything; what does not answer is said in the result instead of raised."""
    status = Status()
    async with anyio.create_task_group() as group:
        if run is not None:
            status.url = run.url
            status.orders_grpc = run.ports.addresses("orders_port", run.host)
            status.market_data_grpc = run.ports.addresses("market_data_port", run.host)
            group.start_soon(_ask_daemons_into, status, run)
        if postgres_url:
            group.start_soon(_ask_postgres, postgres_url, status)
    return status


async def _ask_daemons_into(status: Status, run: Run) -> None:
    async with http_client() as client:
        status.daemons = await ask_daemons(client, run)
    status.ready = any(part.ready for part in status.daemons if part.name.startswith("gateway"))


def http_client() -> httpx.AsyncClient:
    """For questions on this machine: without the proxies that the environment may name."""
    return httpx.AsyncClient(timeout=_ASK_S, trust_env=False)


async def ask_daemons(client: httpx.AsyncClient, run: Run) -> list[Part]:
    """What each daemon's /readyz says; one that does not answer is not ready."""
    urls = {name: f"http://127.0.0.1:{port}" for name, port in run.ports.health.items()}
    found: dict[str, Part] = {}
    async with anyio.create_task_group() as group:
        for name, url in urls.items():
            group.start_soon(_ask_daemon, client, name, url, found)
    return [found[name] for name in urls]


async def _ask_daemon(client: httpx.AsyncClient, name: str, url: str, found: dict[str, Part]) -> None:
    try:
        response = await client.get(f"{url}/readyz")
        found[name] = Part(name, response.status_code == 200, _failing(response.text))
    except httpx.HTTPError:
        found[name] = Part(name, False, "does not answer")


def _failing(body: str) -> str:
    """The parts that are down, from what `common.health` reports."""
    try:
        parts = json.loads(body)["parts"]
        down = [f"{name}: {part['detail']}" for name, part in parts.items() if not part["ok"]]
    except (ValueError, KeyError, TypeError):
        return ""
    return "; ".join(down)


async def _ask_postgres(url: str, status: Status) -> None:
    try:
        async with connect(url, "exchange status") as connection:
            leaders = connection.cursor(row_factory=class_row(Leader))
            status.leaders = await (await leaders.execute(_LEADERS)).fetchall()
            partitions = connection.cursor(row_factory=class_row(Partition))
            status.partitions = await (await partitions.execute(_PARTITIONS)).fetchall()
    except Exception as error:
        status.problem = f"PostgreSQL: {error}"


def as_json(status: Status) -> str:
    found = asdict(status)
    for row, partition in zip(found["partitions"], status.partitions, strict=True):
        row["lag"] = partition.lag
    return json.dumps(found, indent=2)


def as_text(status: Status) -> str:
    """Tables for people."""
    lines = [f"{'open' if status.ready else 'NOT READY'}  {status.url or '(not running)'}"]
    if status.orders_grpc:
        lines.append(f"gRPC  Orders {status.orders_grpc}  MarketData {status.market_data_grpc}")
    lines += _table(
        ("daemon", "state", ""),
        [(part.name, "ready" if part.ready else "DOWN", part.detail) for part in status.daemons],
    )
    lines += _table(
        ("lease", "partition", "token", "holder", ""),
        [
            (one.service, one.partition, one.fencing_token, one.holder, "" if one.live else "EXPIRED")
            for one in status.leaders
        ],
    )
    lines += _table(
        ("partition", "accepted", "published", "settled", "lag", "outbox rows", ""),
        [
            (
                *(one.partition, one.accepted, one.published, one.settled, one.lag, one.outbox_rows),
                f"STOPPED: {one.stopped}" if one.stopped else "",
            )
            for one in status.partitions
        ],
    )
    return "\n".join(lines + ([status.problem] if status.problem else []))


def _table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> list[str]:
    if not rows:
        return []
    cells = [head, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    return ["", *(line.rstrip() for line in lines)]
