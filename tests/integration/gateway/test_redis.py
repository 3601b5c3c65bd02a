"""The pipe before a real Valkey."""

import pytest

from common.health import Health
from daemons.local.servers import Servers
from gateway.redis_pipe import RedisRefused, Script, redis_pipe

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


async def test_commands_scripts_and_a_script_that_was_forgotten(servers: Servers) -> None:
    url = f"{servers.redis_url.rpartition('/')[0]}/255"
    script = Script("return {KEYS[1], ARGV[1] + 1}")
    async with redis_pipe(url, Health()) as pipe:
        assert await pipe.command("SET", "test:nonce", 1, "NX", "PX", 5_000) == b"OK"
        assert await pipe.command("SET", "test:nonce", 1, "NX", "PX", 5_000) is None
        for _ in range(2):
            assert await pipe.script(script, ["k"], [41]) == [b"k", 42]
            await pipe.command("SCRIPT", "FLUSH")
        with pytest.raises(RedisRefused):
            await pipe.command("INCR")
