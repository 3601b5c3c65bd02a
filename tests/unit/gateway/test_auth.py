"""Which headers say who calls, and what is checked before anybody is asked."""

import itertools

import pytest
import trio

from common.core.errors import (
    AddressNotAllowed,
    ExchangeError,
    SignatureRepeated,
    SignatureWrong,
    TimestampOutsideWindow,
    Unauthenticated,
)
from common.identity.caller import Caller, SigningKey
from common.identity.kept import Kept
from common.identity.networks import read_networks
from common.identity.permissions import ALL, READ
from common.identity.signed import SignedRequests
from common.identity.signing import HmacKey
from common.identity.window import LocalReplays, Window, unix_ms
from gateway.auth import Identity
from gateway.calls import Call

pytestmark = pytest.mark.anyio

SECRET = HmacKey(b"secret")
OFFICE = read_networks(["203.0.113.0/24"])
TOKENS = {"alice": Caller(1001, ALL), "office": Caller(1001, READ, "ak_office", OFFICE)}
KEYS = {
    "ak_alice": SigningKey(Caller(1001, ALL, "ak_alice"), SECRET),
    "ak_office": SigningKey(Caller(1001, ALL, "ak_office", OFFICE), SECRET),
}


_apart_ms = itertools.cycle(range(900))


class Directory:
    def __init__(self) -> None:
        self.look_ups = 0
        window = Window(5_000)
        keys = Kept(self.key, 2.0, trio.current_time)
        self.identity = Identity(
            Kept(self.token, 2.0, trio.current_time), SignedRequests(keys, window, LocalReplays(window))
        )

    async def token(self, token: str) -> Caller:
        self.look_ups += 1
        if token not in TOKENS:
            raise Unauthenticated
        return TOKENS[token]

    async def key(self, api_key: str) -> SigningKey:
        self.look_ups += 1
        if api_key not in KEYS:
            raise Unauthenticated
        return KEYS[api_key]


def call(headers: dict[str, str], address: str = "127.0.0.1", query: bytes = b"", body: bytes = b"") -> Call:
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Call("POST", "/a b", b"/a%20b", query, pairs, "r", body, address)


def signed(api_key: str, message: str, timestamp_ms: int = 0) -> dict[str, str]:
    timestamp = str(timestamp_ms or unix_ms() + next(_apart_ms))  # All keys here have one secret.
    signature = SECRET.sign(f"{timestamp}{message}".encode()).hex()
    return {"x-api-key": api_key, "x-timestamp": timestamp, "x-signature": signature}


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "alice", "Bearer " + "x" * 300]
)
async def test_what_is_no_bearer_token_is_not_looked_up(header: str) -> None:
    directory = Directory()
    with pytest.raises(Unauthenticated):
        await directory.identity(call({"authorization": header}))
    assert directory.look_ups == 0


async def test_without_any_header_nobody_is_looked_up() -> None:
    directory = Directory()
    with pytest.raises(Unauthenticated, match="X-Api-Key"):
        await directory.identity(call({}))
    assert directory.look_ups == 0


async def test_a_token_counts_before_a_signature() -> None:
    directory = Directory()
    given = {"authorization": "Bearer alice", "x-api-key": "ak_nobody"}
    assert await directory.identity(call(given)) is TOKENS["alice"]
    with pytest.raises(Unauthenticated):
        await directory.identity(call(signed("ak_alice", "POST/a%20b") | {"authorization": "Bearer bob"}))


async def test_who_is_known_is_known_without_a_question() -> None:
    directory = Directory()
    alice, bob = call({"authorization": "Bearer alice"}), call({"authorization": "Bearer bob"})
    assert not directory.identity.knows(alice)
    await directory.identity(alice)
    with pytest.raises(Unauthenticated):
        await directory.identity(bob)
    assert directory.identity.knows(alice)
    assert not directory.identity.knows(bob)
    assert not directory.identity.knows(call({}))
    assert directory.look_ups == 2


async def test_a_session_of_a_bound_key_is_bound_too() -> None:
    directory = Directory()
    given = {"authorization": "Bearer office"}
    with pytest.raises(AddressNotAllowed):
        await directory.identity(call(given))
    assert (await directory.identity(call(given, "203.0.113.7"))).key_id == "ak_office"


async def test_a_signature_covers_path_query_and_body_as_they_were_sent() -> None:
    directory = Directory()
    whole = call(signed("ak_alice", 'POST/a%20b?x=%20{"a": 1}'), query=b"x=%20", body=b'{"a": 1}')
    assert await directory.identity(whole) is KEYS["ak_alice"].caller
    for message in ("POST/a b", "GET/a%20b", "POST/a%20b?x", "POST/a%20bx", "POST/A%20b", ""):
        with pytest.raises(SignatureWrong):
            await directory.identity(call(signed("ak_alice", message)))
    assert directory.look_ups == 1


async def test_the_checks_in_their_order() -> None:
    directory = Directory()
    good = signed("ak_alice", "POST/a%20b")
    await directory.identity(call(good))
    cases: list[tuple[dict[str, str], type[ExchangeError]]] = [
        (good, SignatureRepeated),
        (good | {"x-signature": good["x-signature"].upper()}, SignatureRepeated),
        (good | {"x-timestamp": str(unix_ms() + 1)}, SignatureWrong),
        (good | {"x-timestamp": ""}, TimestampOutsideWindow),
        (signed("ak_alice", "POST/a%20b", unix_ms() - 6_000), TimestampOutsideWindow),
        (signed("ak_alice", "POST/a%20b", unix_ms() + 60_000), TimestampOutsideWindow),
        (good | {"x-signature": "0" * 64}, SignatureWrong),
        (good | {"x-signature": "\xe9"}, SignatureWrong),
        (signed("ak_nobody", "POST/a%20b"), Unauthenticated),
        (signed("../\xe9", "POST/a%20b"), Unauthenticated),
        (signed("ak_office", "POST/a%20b"), AddressNotAllowed),
    ]
    for headers, error in cases:
        with pytest.raises(error) as caught:
            await directory.identity(call(headers))
        assert type(caught.value) is error
    bound = signed("ak_office", "POST/a%20b")
    assert (await directory.identity(call(bound, "203.0.113.7"))).key_id == "ak_office"


async def test_a_refused_request_does_not_count_as_taken() -> None:
    directory = Directory()
    bound = signed("ak_office", "POST/a%20b")
    with pytest.raises(AddressNotAllowed):
        await directory.identity(call(bound, "127.0.0.1"))
    await directory.identity(call(bound, "203.0.113.7"))
