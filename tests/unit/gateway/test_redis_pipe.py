"""Round trips that are shared, and a Redis that is away, hangs, comes back or talks nonsense."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from common.config import BadSetting
from common.health import Health
from daemons.local.ports import free_port
from gateway.redis_pipe import CALL_S, RedisAway, RedisPipe, RedisRefused, Script, redis_pipe
from gateway.resp import Reply
from tests.unit.gateway.redis_stub import RedisStub, redis_stub

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the stub may be late, and must not be taken for one that hangs."""
    monkeypatch.setattr("gateway.redis_pipe.CALL_S", 10.0)


@asynccontextmanager
async def pipe_and_stub() -> AsyncIterator[tuple[RedisPipe, RedisStub, Health]]:
    health = Health()
    async with (
        redis_stub() as (stub, port),
        redis_pipe(f"redis://:secret@127.0.0.1:{port}/3", health) as pipe,
    ):
        assert pipe.up
        yield pipe, stub, health


async def until_up(pipe: RedisPipe) -> None:
    with trio.fail_after(10):
        while not pipe.up:
            await trio.sleep(0.01)


async def test_it_greets_and_asks() -> None:
    async with pipe_and_stub() as (pipe, stub, health):
        assert await pipe.command("GET", "x") == b"GET"
        assert stub.seen == [[b"AUTH", b"secret"], [b"SELECT", b"3"], [b"PING"], [b"GET", b"x"]]
        assert health.report()["parts"] == {"redis": {"ok": True, "detail": ""}}


async def test_what_is_asked_during_a_round_trip_shares_the_next_one() -> None:
    async with pipe_and_stub() as (pipe, stub, _):
        stub.answer = lambda words: b":%s\r\n" % words[1]
        replies: dict[int, Reply] = {}

        async def ask(number: int) -> None:
            replies[number] = await pipe.command("GET", number)

        before = stub.writes
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
        assert replies == {number: number for number in range(50)}
        assert stub.writes - before <= 2


async def test_a_redis_that_hangs_costs_one_short_wait_and_is_used_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pipe_and_stub() as (pipe, stub, health):
        monkeypatch.setattr("gateway.redis_pipe.CALL_S", CALL_S)
        stub.hold()
        begun_s = trio.current_time()
        with pytest.raises(RedisAway):
            await pipe.command("GET", "x")
        assert trio.current_time() - begun_s > CALL_S * 0.9
        seen = len(stub.seen)
        for _ in range(100):
            with pytest.raises(RedisAway):
                await pipe.command("GET", "x")
        assert [words for words in stub.seen[seen:] if words[0] == b"GET"] == []
        assert health.report()["parts"] == {
            "redis": {"ok": False, "detail": "does not answer: TooSlowError"}
        }  # And yet:
        stub.go.set()
        await until_up(pipe)
        assert await pipe.command("GET", "x") == b"GET"


async def test_a_connection_that_breaks_is_made_again() -> None:
    async with pipe_and_stub() as (pipe, stub, _):
        stub.end()
        with pytest.raises(RedisAway):
            await pipe.command("GET", "x")
        await until_up(pipe)
        assert await pipe.command("GET", "x") == b"GET"


async def test_an_idle_pipe_notices_that_redis_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.redis_pipe.PROBE_S", 0.05)
    async with pipe_and_stub() as (pipe, stub, _):
        monkeypatch.setattr("gateway.redis_pipe.CALL_S", CALL_S)
        stub.hold()
        with trio.fail_after(10):
            while pipe.up:
                await trio.sleep(0.01)


async def test_an_error_is_its_commands_alone() -> None:
    async with pipe_and_stub() as (pipe, stub, _):
        stub.answer = lambda words: b"-OOM no room\r\n" if words[0] == b"SET" else b"$-1\r\n"
        with pytest.raises(RedisRefused, match="OOM") as caught:
            await pipe.command("SET", "x", 1)
        assert caught.value.reply.code == "OOM"
        assert await pipe.command("GET", "x") is None


async def test_nonsense_is_no_redis() -> None:
    async with pipe_and_stub() as (pipe, stub, _):
        stub.answer = lambda _: b"HTTP/1.1 400 Bad Request\r\n\r\n"
        with pytest.raises(RedisAway):
            await pipe.command("GET", "x")
        assert not pipe.up


async def test_a_forgotten_script_is_sent_whole() -> None:
    async with pipe_and_stub() as (pipe, stub, _):
        script = Script("return 1")
        stub.answer = lambda words: b"-NOSCRIPT no\r\n" if words[0] == b"EVALSHA" else b":1\r\n"
        assert await pipe.script(script, ["k"], ["a", 2]) == 1
        assert stub.seen[-1] == [b"EVAL", b"return 1", b"1", b"k", b"a", b"2"]


async def test_who_is_cancelled_in_the_queue_is_not_sent() -> None:
    async with pipe_and_stub() as (pipe, stub, _), trio.open_nursery() as nursery:
        stub.hold()
        nursery.start_soon(pipe.command, "GET", "first")
        while stub.seen[-1] != [b"GET", b"first"]:
            await trio.sleep(0.001)
        with trio.move_on_after(0.01):
            await pipe.command("SET", "x", 1)
        stub.go.set()
        assert await pipe.command("GET", "x") == b"GET"
        assert [words for words in stub.seen if words[0] == b"SET"] == []


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:{port}"], ids=["not configured", "nobody there"])
async def test_without_redis(url: str) -> None:
    health = Health()
    async with redis_pipe(url.format(port=free_port()), health) as pipe:
        assert not pipe.up
        with pytest.raises(RedisAway):
            await pipe.command("GET", "x")


@pytest.mark.parametrize("url", ["http://a", "redis://", "redis://a:b", "redis://:hunter2@a/x"])
async def test_a_wrong_url_stops_the_start_and_is_not_repeated(url: str) -> None:
    with pytest.raises(BadSetting, match="EXCHANGE_REDIS_URL") as caught:
        async with redis_pipe(url, Health()):
            pass
    assert "hunter2" not in str(caught.value)
