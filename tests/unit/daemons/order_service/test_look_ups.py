"""Look-ups that wait share a statement, and made-up names cost no more than one session of the database."""

from collections.abc import Mapping, Sequence

import anyio
import pytest

from common.core.errors import Busy, Unavailable
from daemons.order_service import look_ups
from daemons.order_service.look_ups import LookUps, Row
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio

CALL_S = 0.1


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Database:
    """Knows even numbers; a statement takes CALL_S."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.at_once = 0
        self.error: Exception | None = None

    async def find(self, names: Sequence[str]) -> Mapping[str, Row]:
        self.calls.append(len(names))
        self.at_once += 1
        assert self.at_once == 1
        try:
            await anyio.sleep(CALL_S)
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        return {name: (name,) for name in names if int(name) % 2 == 0}


async def test_who_waits_shares_the_next_statement() -> None:
    database = Database()
    found: LookUps[str] = LookUps(database.find)
    rows: dict[int, Row | None] = {}

    async def ask(number: int) -> None:
        rows[number] = await found.row(str(number))

    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        for number in range(500):
            group.start_soon(ask, number)
    assert rows == {number: (str(number),) if number % 2 == 0 else None for number in range(500)}
    assert sum(database.calls) == 500
    assert len(database.calls) <= 2
    assert anyio.current_time() - began_s <= 2 * CALL_S + 0.001


async def test_a_statement_has_a_bounded_number_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ups, "MOST_NAMES", 10)
    database = Database()
    found: LookUps[str] = LookUps(database.find)
    async with anyio.create_task_group() as group:
        for number in range(45):
            group.start_soon(found.row, str(number))
    assert max(database.calls) <= 10
    assert sum(database.calls) == 45


async def test_more_than_can_wait_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ups, "MOST_WAITING", 5)
    database = Database()
    found: LookUps[str] = LookUps(database.find)
    busy = 0

    async def ask(number: int) -> None:
        nonlocal busy
        try:
            await found.row(str(number))
        except Busy:
            busy += 1

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(ask, number)
    assert busy == 3
    assert await found.row("2") == ("2",)


async def test_an_error_is_everybodys_and_the_next_ask_again() -> None:
    database = Database()
    database.error = Unavailable("away")
    found: LookUps[str] = LookUps(database.find)
    errors: list[str] = []

    async def ask(number: int) -> None:
        try:
            await found.row(str(number))
        except Unavailable as error:
            errors.append(error.message)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, number)
    assert errors == ["away"] * 20
    assert len(database.calls) <= 2
    database.error = None
    assert await found.row("4") == ("4",)


async def test_who_leaves_leaves_the_others_their_answer() -> None:
    database = Database()
    found: LookUps[str] = LookUps(database.find)
    rows: list[Row | None] = []

    async def give_up(name: str) -> None:
        with anyio.move_on_after(CALL_S / 2):
            await found.row(name)

    async def ask(name: str) -> None:
        rows.append(await found.row(name))

    async with anyio.create_task_group() as group:
        group.start_soon(give_up, "2")
        await anyio.sleep(CALL_S / 10)
        group.start_soon(give_up, "4")
        group.start_soon(ask, "4")
        group.start_soon(ask, "6")
    assert sorted(map(str, rows)) == ["('4',)", "('6',)"]  # Trio schedules at random.
