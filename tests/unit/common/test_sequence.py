"""What a batch writes at its place: the shard's new number, time and chain, and the outbox row."""

from typing import cast

import pytest

from common import sequence
from common.core import messages as m
from common.core.sequencing import chain_of
from common.db import Connection
from common.wire import decode_commands

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Recorded:
    """Stands for a session: remembers what it was told to execute."""

    def __init__(self) -> None:
        self.given: list[list[object]] = []

    async def execute(self, statement: str, given: list[object]) -> None:
        self.given.append(given)


async def test_the_chain_covers_place_time_and_commands() -> None:
    session, previous = Recorded(), b"p" * 32
    place = sequence.Place(partition=3, first_sequence=10, time_us=77, previous_chain=previous)
    commands: list[m.Command] = [m.Cancel(1, 2), m.CancelAll(2, 0), m.Noop(0, "why")]
    await sequence.write(cast(Connection, session), place, commands)
    [given] = session.given
    body = given[-1]
    assert isinstance(body, bytes)
    chain = chain_of(previous, 10, 77, body)
    shard, row = given[:4], given[4:]
    assert shard == [12, 77, chain, 3]
    assert row == [3, 10, 12, 77, previous, chain, body]
    assert decode_commands(body) == commands
