"""The memory of signatures that instances share, before a real Valkey."""

import os
from functools import partial

import anyio
import pytest

from common.core.errors import SignatureRepeated
from common.health import Health
from common.identity.redis_claims import shared_replays
from common.identity.window import AHEAD_MS, SharedReplays, Window, unix_ms
from daemons.local.ports import free_port
from daemons.local.servers import Servers
from gateway.auth import claims_through
from gateway.redis_pipe import redis_pipe

WINDOW = Window(5_000)


def signature() -> bytes:
    return os.urandom(32)


def url_of(servers: Servers) -> str:
    return f"{servers.redis_url.rpartition('/')[0]}/254"


async def take_at_two(url: str) -> None:
    async with shared_replays(url, "test", WINDOW) as one, shared_replays(url, "test", WINDOW) as two:
        taken = signature()
        await one.take(taken, unix_ms())
        with pytest.raises(SignatureRepeated):
            await two.take(taken, unix_ms())
        await two.take(signature(), unix_ms())


def test_instances_share_it(servers: Servers) -> None:
    anyio.run(take_at_two, url_of(servers))


async def take_without(url: str) -> None:
    async with shared_replays(url, "test", WINDOW) as replays:
        for _ in range(3):
            taken = signature()
            await replays.take(taken, unix_ms() + AHEAD_MS)
            with pytest.raises(SignatureRepeated):
                await replays.take(taken, unix_ms())


def test_without_redis_each_has_its_own() -> None:
    anyio.run(take_without, f"redis://127.0.0.1:{free_port()}/0")
    anyio.run(take_without, "")


async def take_at_the_gateway(url: str, taken: bytes, repeated: bool) -> None:
    async with redis_pipe(url, Health()) as pipe:
        replays = SharedReplays(WINDOW, claims_through(pipe, "test"))
        if repeated:
            with pytest.raises(SignatureRepeated):
                await replays.take(taken, unix_ms())
        else:
            await replays.take(taken, unix_ms())


def test_a_gateway_knows_what_the_one_before_it_took(servers: Servers) -> None:
    taken = signature()
    for repeated in (False, True):
        anyio.run(partial(take_at_the_gateway, url_of(servers), taken, repeated), backend="trio")
    anyio.run(
        partial(take_at_the_gateway, f"redis://127.0.0.1:{free_port()}/0", taken, False), backend="trio"
    )
