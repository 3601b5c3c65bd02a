"""Idempotency-Key on a whole exchange: whatever is flushed or killed between two steps, it is done once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest
import redis

from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.shop import balances, clear, get, limit, until

REPLAY = "idempotent-replay"


@pytest.fixture
def user(exchange: Exchange) -> Iterator[User]:
    user = exchange.join()
    yield user
    clear(exchange, user)


@pytest.fixture
def database(exchange: Exchange) -> Iterator["Database"]:
    with psycopg.connect(exchange.settings.postgres_url, autocommit=True) as connection:
        yield Database(connection)


class Database:
    """What a test looks at and moves in PostgreSQL."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def count(self, what: str, user: User) -> int:
        row = self._connection.execute(
            f"SELECT count(*) FROM {what} WHERE user_id = %s".encode(), [int(user.user_id)]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def forget(self, user: User) -> None:
        self._connection.execute("DELETE FROM idempotency_keys WHERE user_id = %s", [int(user.user_id)])

    def age(self, column: str, interval: str) -> None:
        """Move a time of every key into the past."""
        statement = f"UPDATE idempotency_keys SET {column} = {column} - interval '{interval}'"
        self._connection.execute(statement.encode())


@contextmanager
def held(exchange: Exchange, table: str, user: User) -> Iterator[psycopg.Connection[Any]]:
    """Nobody changes the user's rows there, until the session that is given rolls back."""
    with psycopg.connect(exchange.settings.postgres_url) as connection:
        statement = f"SELECT 1 FROM {table} WHERE user_id = %s FOR UPDATE"
        connection.execute(statement.encode(), [int(user.user_id)])
        yield connection


def send(
    exchange: Exchange, user: User, key: str, body: object, path: str = "/api/v1/orders"
) -> httpx.Response:
    return exchange.http.post(path, json=body, headers=user.headers | {"Idempotency-Key": key})


def code_of(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def flush(exchange: Exchange) -> None:
    with redis.Redis.from_url(exchange.settings.redis_url) as client:
        client.flushdb()


def recorded(exchange: Exchange, user: User, key: str, body: object) -> None:
    """Repeat it until Redis has the answer, which may be too slow for one."""
    with redis.Redis.from_url(exchange.settings.redis_url) as client:
        name = f"{exchange.settings.topic_prefix}:idempotency:{user.user_id}:{key}"
        until(lambda: bool(client.exists(name)) or not send(exchange, user, key, body), bool)
        assert 0 < int(str(client.ttl(name))) <= 24 * 3600


BID = limit("BUY", "30000", "0.01")


@pytest.mark.parametrize("flushed", [False, True])
def test_the_same_again_is_the_first_answer(
    exchange: Exchange, user: User, database: Database, flushed: bool
) -> None:
    first = send(exchange, user, "same", BID)
    assert (first.status_code, REPLAY in first.headers) == (202, False)
    assert first.json()["client_order_id"].startswith("ik-")
    if flushed:
        flush(exchange)
    else:  # Then PostgreSQL is not asked.
        recorded(exchange, user, "same", BID)
        database.forget(user)
    again = send(exchange, user, "same", BID)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert (again.headers[REPLAY], again.headers["content-type"]) == ("true", first.headers["content-type"])
    other = send(exchange, user, "same", BID | {"price": "30001"})
    assert (other.status_code, code_of(other)) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert code_of(send(exchange, user, "same", BID, "/api/v1/orders?x=1")) == "IDEMPOTENCY_KEY_REUSED"
    assert database.count("orders", user) == 1
    stranger = exchange.join()
    theirs = send(exchange, stranger, "same", BID)
    assert (theirs.status_code, REPLAY in theirs.headers) == (202, False)
    clear(exchange, stranger)


def test_a_refusal_is_an_answer_and_malformed_keys_are_none(exchange: Exchange, user: User) -> None:
    poor = [send(exchange, user, "poor", BID | {"quantity": "1000"}) for _ in range(2)]
    assert [code_of(one) for one in poor] == ["INSUFFICIENT_FUNDS"] * 2
    assert poor[0].content == poor[1].content
    for key in ("", "a b", "k" * 256):
        wrong = send(exchange, user, key, BID)
        assert (wrong.status_code, code_of(wrong)) == (400, "MALFORMED")
    unknown = exchange.http.post("/api/v1/orders", json=BID, headers={"Idempotency-Key": "k"})
    assert unknown.status_code == 401


def test_a_batch_names_each_place(exchange: Exchange, user: User, database: Database) -> None:
    batch = [BID, BID, BID | {"price": "1.001"}, BID | {"client_order_id": "mine"}]
    first, again = (send(exchange, user, "batch", batch, "/api/v1/orders/batch") for _ in range(2))
    assert first.content == again.content
    names = [result.get("client_order_id", "error") for result in first.json()["results"]]
    assert [names[0][-2:], names[1][-2:], *names[2:]] == [".0", ".1", "error", "mine"]
    assert database.count("orders", user) == 3


def test_many_at_once_are_one(exchange: Exchange, user: User, database: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(exchange, user, "many", BID), range(32)))
    for answer in answers:
        if answer.status_code == 409:
            assert (code_of(answer), answer.headers["retry-after"]) == ("IDEMPOTENCY_KEY_IN_FLIGHT", "1")
    placed = {answer.content for answer in answers if answer.status_code == 202}
    assert len(placed) == 1
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert database.count("orders", user) == 1


def test_after_24_hours_the_key_is_new(exchange: Exchange, user: User, database: Database) -> None:
    first = send(exchange, user, "day", BID)
    database.age("created_at", "24 hours")
    flush(exchange)
    second = send(exchange, user, "day", BID | {"price": "30001"})
    assert (second.status_code, REPLAY in second.headers) == (202, False)
    assert first.json()["client_order_id"] != second.json()["client_order_id"]


def test_cancels_and_money_are_done_once(exchange: Exchange, user: User) -> None:
    def delete(path: str, key: str) -> httpx.Response:
        return exchange.http.delete(path, headers=user.headers | {"Idempotency-Key": key})

    order = send(exchange, user, "rest", BID).json()
    path = f"/api/v1/orders/{order['order_id']}"
    first = delete(path, "cancel")
    until(lambda: get(exchange, path, user)["status"], lambda status: status == "CANCELED")
    again = delete(path, "cancel")
    assert (first.status_code, first.content, again.headers[REPLAY]) == (202, again.content, "true")
    assert delete(path, "another").status_code == 409
    swept = delete("/api/v1/orders", "sweep")
    later = send(exchange, user, "later", BID).json()
    assert delete("/api/v1/orders", "sweep").content == swept.content
    until(lambda: get(exchange, f"/api/v1/orders/{later['order_id']}", user)["status"], "OPEN".__eq__)
    recharged = [send(exchange, user, "money", {}, "/api/v1/test/recharge") for _ in range(2)]
    assert recharged[0].content == recharged[1].content
    assert balances(exchange, user)["USD"] == ("999700", "300")


def send_into_the_dark(exchange: Exchange, user: User) -> None:
    """Whoever should answer may be killed meanwhile."""
    with suppress(httpx.TransportError):
        send(exchange, user, "dark", BID)


@pytest.mark.parametrize("name", ["gateway", "order-service"])
@pytest.mark.parametrize("step", ["claimed", "placed"])
def test_killed_between_two_steps(
    exchange: Exchange, user: User, database: Database, name: str, step: str
) -> None:
    """The test holds what the next step needs: TX1 the user's row, the settlement the key's."""
    with ThreadPoolExecutor(1) as pool, held(exchange, "users", user) as users:
        sent = pool.submit(send_into_the_dark, exchange, user)
        until(lambda: database.count("idempotency_keys", user), (1).__eq__)
        if step == "placed":
            with held(exchange, "idempotency_keys", user):
                users.rollback()
                until(lambda: database.count("orders", user), (1).__eq__)
                exchange.kill(name)
        else:
            exchange.kill(name)
        users.rollback()
        sent.result()
    exchange.start(name)
    exchange.wait_ready()
    database.age("claimed_at", "1 minute")  # Its claimant has been silent for long.
    first = send(exchange, user, "dark", BID)
    flush(exchange)
    again = send(exchange, user, "dark", BID)
    assert (first.status_code, first.content, again.headers[REPLAY]) == (202, again.content, "true")
    assert database.count("orders", user) == 1


def test_a_silent_claimant_is_not_taken_over_at_once(
    exchange: Exchange, user: User, database: Database
) -> None:
    with ThreadPoolExecutor(1) as pool, held(exchange, "users", user) as users:
        sent = pool.submit(send_into_the_dark, exchange, user)
        until(lambda: database.count("idempotency_keys", user), (1).__eq__)
        exchange.kill("gateway")
        users.rollback()
        sent.result()
    exchange.start("gateway")
    exchange.wait_ready()
    assert code_of(send(exchange, user, "dark", BID)) == "IDEMPOTENCY_KEY_IN_FLIGHT"
    database.age("claimed_at", "12 seconds")
    assert send(exchange, user, "dark", BID).status_code == 202
    assert database.count("orders", user) == 1


def test_without_redis_the_truth_is_the_same(exchange: Exchange, user: User) -> None:
    with redis.Redis.from_url(exchange.settings.redis_url) as client:
        first = send(exchange, user, "gone", BID)
        client.client_pause(2_000)
        assert send(exchange, user, "gone", BID).content == first.content
        client.client_unpause()
