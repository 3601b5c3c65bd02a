"""A migrated database, and two instances' stores of leases on it."""

from collections.abc import AsyncIterator

import pytest

from common.db import Connection, connect
from common.lease import PostgresLeases
from common.migrate import migrate


@pytest.fixture
async def url(database: str) -> str:
    await migrate(database, 4)
    return database


@pytest.fixture
async def admin(url: str) -> AsyncIterator[Connection]:
    async with connect(url, "admin") as connection:
        yield connection


@pytest.fixture
async def one(url: str) -> AsyncIterator[PostgresLeases]:
    async with PostgresLeases(url, "one") as store:
        yield store


@pytest.fixture
async def two(url: str) -> AsyncIterator[PostgresLeases]:
    async with PostgresLeases(url, "two") as store:
        yield store
