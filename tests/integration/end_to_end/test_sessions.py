"""Sessions: opened by a signature, worth no more than their key, ended by hand, by time and with the key."""

import json
from functools import partial

import pytest

from common import sessions
from common.admin import create_token
from common.core.errors import TooManySessions
from common.identity.permissions import READ, TRADE
from tests.harness.exchange import Exchange, User
from tests.integration.end_to_end.doors import (
    EVERY,
    READING,
    Key,
    in_database,
    make_key,
    revoke,
)
from tests.integration.end_to_end.shop import Json, until

PATH = "/api/v1/session"


@pytest.fixture(scope="module")
def user(exchange: Exchange) -> User:
    return exchange.join()


def open_session(exchange: Exchange, key: Key, body: object = None, status: int = 201) -> Json:
    content = "" if body is None else json.dumps(body)
    headers = key.headers(lambda timestamp: f"{timestamp}POST{PATH}{content}")
    response = exchange.http.post(PATH, content=content, headers=headers)
    assert response.status_code == status, response.text
    if status == 201:
        assert response.headers["cache-control"] == "no-store"
    answer: Json = response.json()
    return answer


def bearer(session: Json) -> dict[str, str]:
    return {"authorization": f"Bearer {session['token']}"}


def close(exchange: Exchange, credentials: dict[str, str]) -> tuple[int, str]:
    response = exchange.http.delete(PATH, headers=credentials)
    answer = response.json()
    return response.status_code, answer.get("status") or answer["error"]["code"]


def test_a_session_opens_every_door_until_it_is_closed(exchange: Exchange, user: User) -> None:
    session = open_session(exchange, make_key(exchange, user))
    assert session["permissions"] == ["READ", "TRADE"]
    for door in EVERY:
        assert door.knock(exchange, bearer(session)) == ""
    assert close(exchange, bearer(session)) == (200, "ENDED")
    assert close(exchange, bearer(session)) == (401, "UNAUTHENTICATED")
    for door in EVERY:  # At once at this gateway, elsewhere soon.
        heard = until(partial(door.knock, exchange, bearer(session)), bool)
        assert heard == "UNAUTHENTICATED"


def test_a_session_may_have_less_than_its_key_and_never_more(exchange: Exchange, user: User) -> None:
    reading = open_session(exchange, make_key(exchange, user), {"permissions": ["READ"]})
    assert reading["permissions"] == ["READ"]
    for door in EVERY:
        expected = "" if door in READING else "PERMISSION_MISSING"
        assert door.knock(exchange, bearer(reading)) == expected
    reader = make_key(exchange, user, permissions=READ)
    refused = open_session(exchange, reader, {"permissions": ["READ", "TRADE"]}, 403)
    assert refused["error"]["details"] == {"needs": "TRADE"}
    assert open_session(exchange, reader)["permissions"] == ["READ"]


@pytest.mark.parametrize(
    "body", [{"permissions": []}, {"permissions": ["ALL"]}, {"user_id": 1}, [], "x", {"permissions": "READ"}]
)
def test_a_bad_wish(exchange: Exchange, user: User, body: object) -> None:
    refused = open_session(exchange, make_key(exchange, user), body, 400)
    assert refused["error"]["code"] == "MALFORMED"


def test_a_session_is_opened_by_a_signature_alone(exchange: Exchange, user: User) -> None:
    session = open_session(exchange, make_key(exchange, user))
    for headers in ({}, user.headers, bearer(session)):
        response = exchange.http.post(PATH, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "UNAUTHENTICATED")


def test_only_a_session_can_be_closed(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    assert close(exchange, user.headers) == (422, "NOT_A_SESSION")
    assert close(exchange, key.headers(lambda timestamp: f"{timestamp}DELETE{PATH}")) == (
        422,
        "NOT_A_SESSION",
    )
    assert exchange.http.get("/api/v1/accounts", headers=user.headers).status_code == 200


def test_a_session_ends_with_its_key(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    session = open_session(exchange, key)
    for door in EVERY:
        assert door.knock(exchange, bearer(session)) == ""
    revoke(exchange, key)
    for door in EVERY:
        assert until(partial(door.knock, exchange, bearer(session)), bool) == "UNAUTHENTICATED"
    open_session(exchange, key, status=401)


def test_a_session_ends_by_itself(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    short = in_database(
        exchange, lambda connection: sessions.open_session(connection, key.api_key, READ, 0.5)
    )
    given = {"authorization": f"Bearer {short.token}"}
    assert READING[0].knock(exchange, given) == ""
    for door in READING:
        assert until(partial(door.knock, exchange, given), bool, within_s=1.0) == "UNAUTHENTICATED"


def test_a_session_is_bound_to_the_addresses_of_its_key(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user, networks=["203.0.113.0/24"])
    made = in_database(
        exchange, lambda connection: sessions.open_session(connection, key.api_key, READ | TRADE, 60)
    )
    for door in EVERY:
        assert door.knock(exchange, {"authorization": f"Bearer {made.token}"}) == "ADDRESS_NOT_ALLOWED"


def test_a_key_has_a_bounded_number_of_sessions(
    exchange: Exchange, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
    key = make_key(exchange, user)

    def open_one(session_s: float) -> sessions.Session:
        return in_database(
            exchange, lambda connection: sessions.open_session(connection, key.api_key, READ, session_s)
        )

    kept = open_one(60)
    open_one(0.0)  # Has ended already, and makes room.
    open_one(60)
    with pytest.raises(TooManySessions):
        open_one(60)
    in_database(exchange, lambda connection: sessions.close_session(connection, kept.token))
    open_one(60)


def test_the_token_of_a_session_is_not_kept_under_an_idempotency_key(exchange: Exchange, user: User) -> None:
    key = make_key(exchange, user)
    tokens = set()
    for _ in range(2):
        headers = key.headers(lambda timestamp: f"{timestamp}POST{PATH}") | {"Idempotency-Key": "one"}
        response = exchange.http.post(PATH, headers=headers)
        assert (response.status_code, response.headers.get("idempotent-replay")) == (201, None)
        tokens.add(response.json()["token"])
    assert len(tokens) == 2


def test_an_operators_token_may_have_fewer_permissions(exchange: Exchange, user: User) -> None:
    token = in_database(exchange, lambda connection: create_token(connection, int(user.user_id), READ))
    for door in EVERY:
        expected = "" if door in READING else "PERMISSION_MISSING"
        assert door.knock(exchange, {"authorization": f"Bearer {token}"}) == expected
