"""The limits of a session, as the server and the kernel know them."""

import socket

import pytest

from common import db

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # psycopg's asynchronous connections need it.


async def test_a_session_ends_when_it_hangs_on_either_side(database: str) -> None:
    async with db.connect(database, "test") as connection:
        cursor = await connection.execute("SHOW idle_in_transaction_session_timeout")
        assert await cursor.fetchone() == ("1s",)
        with socket.socket(fileno=socket.dup(connection.fileno())) as wire:
            assert wire.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == db.SILENCE_MS
