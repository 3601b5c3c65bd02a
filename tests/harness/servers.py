"""PostgreSQL, Valkey and Kafka for the whole test run: in a thread with a loop of its own."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from anyio.from_thread import start_blocking_portal
from psycopg import sql

from common.config import Settings
from daemons.local.servers import Servers, running_servers

_numbers = itertools.count(1)


def bare_settings(**changes: object) -> Settings:
    """Settings without servers, whatever the environment of the test run says."""
    plain: dict[str, object] = {"postgres_url": "", "redis_url": "", "kafka_bootstrap": ""}
    return Settings().model_copy(update=plain | changes)


@contextmanager
def servers_in_a_thread(folder: Path) -> Iterator[Servers]:
    """The three while the body runs, from any thread and under any loop."""

    def progress(line: str) -> None:
        print(line, flush=True)

    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running_servers(folder, bare_settings(), progress)) as servers,
    ):
        yield servers


@contextmanager
def fresh_database(servers: Servers) -> Iterator[str]:
    """The URL of an empty database, which is dropped in the end, with whoever is still connected."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(servers.postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield f"{servers.postgres_url.rpartition('/')[0]}/{name}"
    finally:
        with psycopg.connect(servers.postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
