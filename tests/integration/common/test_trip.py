"""Statements in one round trip on a real PostgreSQL: their rows, and what an error leaves behind."""

from collections.abc import AsyncIterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from common import db
from common.trip import Trips

pytestmark = pytest.mark.anyio

KINDS = "SELECT %s::bigint, %s::text, %s::bytea, %s::bigint[], %s::bool"
PUT = "INSERT INTO kept VALUES (%s)"
ALL = "SELECT n FROM kept WHERE n > %s ORDER BY n"


@pytest.fixture
async def connection(database: str) -> AsyncIterator[db.Connection]:
    async with db.connect(database, "test") as connection:
        await connection.execute("CREATE TABLE kept (n bigint PRIMARY KEY)")
        yield connection


async def test_each_statement_gives_its_rows(connection: db.Connection) -> None:
    trips = Trips(connection)
    for number in (1, 1 << 40):  # The second time the statements are known.
        begun, kinds, put, there, ended = await trips.go(
            [
                ("BEGIN", ()),
                (KINDS, [number, "ä'\\%", b"\0\xff", "{1,2}", True]),
                (PUT, [number]),
                (ALL, [number - 1]),
                ("COMMIT", ()),
            ]
        )
        assert kinds == [(number, "ä'\\%", b"\0\xff", [1, 2], True)]
        assert there == [(number,)]
        assert (begun, put, ended) == ([], [], [])
    assert await trips.go([(KINDS, [None] * 5)]) == [[(None,) * 5]]
    assert await trips.go([]) == []
    cursor = await connection.execute("SELECT count(*) FROM kept")  # The session is as it was.
    assert await cursor.fetchone() == (2,)


async def test_nothing_runs_after_the_first_error(connection: db.Connection) -> None:
    trips = Trips(connection)
    await trips.go([(PUT, [1])])
    with pytest.raises(psycopg.errors.UniqueViolation):
        await trips.go([("BEGIN", ()), (PUT, [2]), (PUT, [1]), (PUT, [3]), ("COMMIT", ())])
    assert connection.info.transaction_status is TransactionStatus.INERROR
    await trips.rollback()
    assert await trips.go([(ALL, [0])]) == [[(1,)]]
    with pytest.raises(psycopg.errors.UndefinedTable):
        await trips.go([("SELECT %s::int FROM nowhere", [1])])
    assert await trips.go([(PUT, [4]), (ALL, [0])]) == [[], [(1,), (4,)]]


async def test_a_rollback_leaves_the_statements_known(connection: db.Connection) -> None:
    trips = Trips(connection)
    await connection.execute("SELECT 1")
    for _ in range(3):
        await trips.go([("BEGIN", ()), (PUT, [1]), (ALL, [0])])
        await trips.rollback()
        cursor = await connection.execute("SELECT count(*) FROM kept")
        assert await cursor.fetchone() == (0,)


async def test_a_large_parameter_goes_through_and_comes_back(connection: db.Connection) -> None:
    body = bytes(range(256)) * 40_000
    once = ("SELECT %s::bytea", [body])
    assert await Trips(connection).go([once, once]) == [[(body,)], [(body,)]]


async def test_a_session_that_ends_under_way_is_an_error_that_may_pass(connection: db.Connection) -> None:
    trips = Trips(connection)
    with pytest.raises(psycopg.OperationalError) as caught:
        await trips.go(
            [("BEGIN", ()), (PUT, [1]), ("SELECT pg_terminate_backend(pg_backend_pid())", ()), ("COMMIT", ())]
        )
    assert db.is_transient(caught.value)
    with pytest.raises(psycopg.OperationalError) as again:
        await trips.go([(ALL, [0])])
    assert db.is_transient(again.value)
