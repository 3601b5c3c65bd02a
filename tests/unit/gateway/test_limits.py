"""What counts for whom, and the limiter before a Redis that is not always there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from common.health import Health
from gateway.app import every_route
from gateway.limiter import Limiter
from gateway.limits import BATCH, OPS, ORDERS, PRIVATE, PUBLIC, orders_in, subject_of
from gateway.redis_pipe import RedisPipe, redis_pipe
from gateway.windows import Outcome, Window
from tests.unit.gateway.redis_stub import RedisStub, redis_stub

pytestmark = pytest.mark.anyio

RULES = {"few": (Window(3, 10),), "none": ()}


@asynccontextmanager
async def limited(stub: RedisStub, port: int) -> AsyncIterator[tuple[Limiter, RedisPipe]]:
    async with redis_pipe(f"redis://127.0.0.1:{port}", Health()) as pipe, trio.open_nursery() as nursery:
        limiter = Limiter(pipe, "test", RULES)
        nursery.start_soon(limiter.run)
        yield limiter, pipe
        nursery.cancel_scope.cancel()


def verdict(outcome: int, retry_ms: int, words: list[bytes]) -> bytes:
    """What the script would return, the same for each of its keys."""
    if words[0] != b"EVALSHA":
        return b"+OK\r\n"
    one = b"".join(number.to_bytes(4, "big") for number in (outcome, retry_ms, 3, 1, 500))
    data = one * int(words[2])
    return b"$%d\r\n%b\r\n" % (len(data), data)


async def test_checks_at_once_share_a_call_and_each_hears_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.redis_pipe.CALL_S", 10.0)
    async with redis_stub() as (stub, port), limited(stub, port) as (limiter, _):
        stub.answer = lambda words: verdict(1, 0, words)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(limiter.check, "few", b"%d" % number, 1)
        calls = [words for words in stub.seen if words[0] == b"EVALSHA"]
        assert len(calls) <= 2
        assert sum(int(words[2]) for words in calls) == 100
        assert {word for words in calls for word in words if word.startswith(b"{test}")} == {
            b"{test}:limits:few:%d" % number for number in range(100)
        }


async def test_without_redis_it_is_decided_here_and_at_once() -> None:
    async with redis_stub() as (stub, port), limited(stub, port) as (limiter, pipe):
        stub.hold()
        allowed = []
        for _ in range(5):
            told = await limiter.check("few", b"x", 1)
            assert told is not None
            allowed.append(told.allowed)
            assert not pipe.up
        assert allowed == [True, True, True, False, False]
        assert await limiter.check("none", b"x", 1_000_000) is None


async def test_a_pause_is_remembered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.redis_pipe.CALL_S", 10.0)
    async with redis_stub() as (stub, port), limited(stub, port) as (limiter, _):
        stub.answer = lambda words: verdict(2, 50, words)
        assert limiter.pause("few", b"x") is None
        for _ in range(3):
            told = await limiter.check("few", b"x", 1)
            assert told is not None
            assert told.outcome is Outcome.PAUSED
        assert limiter.pause("few", b"x") is not None
        assert [words[0] for words in stub.seen].count(b"EVALSHA") <= 2
        await trio.sleep(0.06)
        assert limiter.pause("few", b"x") is None


def test_the_weights_are_of_routes_that_exist() -> None:
    public = {route.path for route in every_route() if route.permission is None}
    private = {(route.method, route.path) for route in every_route() if route.permission is not None}
    assert set(PUBLIC) | set(OPS) == public
    assert private >= {*PRIVATE, ("POST", ORDERS), ("POST", BATCH)}


@pytest.mark.parametrize(
    ("body", "orders"),
    [
        (json.dumps([{"symbol": "[,]"}] * 7).encode(), 7),
        (json.dumps([{}] * 5_000).encode(), 1_000),
        (b"[]", 1),
        (b"{}", 1),
        (b"[1,", 1),
        (b"[\xff]", 1),
        (b"[" * 100_000, 1),
        (b"", 1),
    ],
)
def test_a_batch_weighs_its_orders(body: bytes, orders: int) -> None:
    assert orders_in(body) == orders


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("192.0.2.7", b"192.0.2.7"),
        ("::ffff:192.0.2.7", b"192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", b"2001:db8:1:2::/64"),
        ("fe80::1%eth0", b"fe80::/64"),
        ("::1", b"::/64"),
        ("", b""),
    ],
)
def test_an_ipv6_customer_is_a_network(address: str, subject: bytes) -> None:
    assert subject_of(address) == subject
