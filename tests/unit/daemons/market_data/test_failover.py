"""A watermark that goes back ends the process; everything else does not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import psycopg
import pytest

from daemons.market_data.failover import until_commits_are_lost
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Looks:
    """A pool that finds one state of the watermarks after the other; None: the server is away."""

    def __init__(self, *states: list[tuple[int, int]] | None) -> None:
        self._states = list(states)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["Looks"]:
        yield self

    async def execute(self, _query: str) -> "Looks":
        return self

    async def fetchall(self) -> list[tuple[int, int]]:
        if not self._states:
            await anyio.sleep_forever()
        state = self._states.pop(0)
        if state is None:
            raise psycopg.OperationalError("away")
        return state


async def reasons(looks: Looks) -> list[str]:
    told: list[str] = []
    with anyio.move_on_after(60):
        await until_commits_are_lost(cast(Any, looks), told.append)
    return told


async def test_watermarks_that_stand_or_grow_are_as_they_should_be() -> None:
    assert await reasons(Looks([(0, 5), (1, 0)], [(0, 5), (1, 0)], None, [(0, 9), (1, 7)])) == []


async def test_one_that_goes_back_says_that_commits_are_lost() -> None:
    [reason] = await reasons(Looks([(0, 5), (1, 8)], None, [(0, 6), (1, 7)], [(0, 6), (1, 9)]))
    assert "the watermark of 1 is 7 again" in reason
