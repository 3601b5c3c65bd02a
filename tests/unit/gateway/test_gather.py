"""Questions share calls, each hears its own answer, and one who has gone costs nothing."""

from collections.abc import Sequence

import pytest
import trio

from common.core.errors import Busy, ExchangeError, Unavailable
from gateway.gather import Gather
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("trio")


class Service:
    """Doubles numbers, a second a call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.error: ExchangeError | None = None
        self.missing = 0

    async def __call__(self, numbers: list[int]) -> Sequence[int]:
        self.calls.append(numbers)
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return [2 * number for number in numbers][self.missing :]


async def ask_all(gather: Gather[int, int], count: int) -> list[int | ExchangeError]:
    answers: list[int | ExchangeError] = [0] * count

    async def ask(index: int) -> None:
        try:
            answers[index] = await gather.ask(index)
        except ExchangeError as error:
            answers[index] = error

    async with trio.open_nursery() as running:
        running.start_soon(gather.run)
        async with trio.open_nursery() as asking:
            for index in range(count):
                asking.start_soon(ask, index)
                await trio.sleep(0.01)
        running.cancel_scope.cancel()
    return answers


async def test_what_is_asked_during_a_call_shares_the_next_one() -> None:
    service = Service()
    assert await ask_all(Gather(service, most=4, most_waiting=10), 8) == [2 * n for n in range(8)]
    assert service.calls == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_an_error_is_everybodys_own() -> None:
    service = Service()
    service.error = Unavailable("away", {"part": "it"})
    errors = await ask_all(Gather(service, most=4, most_waiting=10), 3)
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error, Unavailable) and error.details == {"part": "it"} for error in errors)


async def test_a_wrong_number_of_answers_is_an_error() -> None:
    service = Service()
    service.missing = 1
    [error] = await ask_all(Gather(service, most=4, most_waiting=10), 1)
    assert isinstance(error, ExchangeError)


async def test_a_full_queue_is_busy() -> None:
    answers = await ask_all(Gather(Service(), most=2, most_waiting=2), 5)
    assert [type(answer) for answer in answers] == [int, int, int, Busy, Busy]


async def test_who_has_gone_is_not_asked_for() -> None:
    service = Service()
    gather = Gather(service, most=4, most_waiting=10)
    async with trio.open_nursery() as running:
        running.start_soon(gather.run)
        running.start_soon(gather.ask, 1)
        await trio.sleep(0.1)
        with trio.move_on_after(0.1):
            await gather.ask(2)
        assert await gather.ask(3) == 6
        running.cancel_scope.cancel()
    assert service.calls == [[1], [3]]
