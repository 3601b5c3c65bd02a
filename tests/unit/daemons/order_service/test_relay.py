"""When a watermark that stands still means that records were lost, and who is woken."""

from itertools import pairwise

import anyio
import pytest

from daemons.order_service.relay import POLL_S, STALL_MOST_S, STALL_S, Relays, _Stall
from tests.harness.virtual_time import Backend, virtual_time


@pytest.fixture
def anyio_backend() -> Backend:
    return virtual_time("asyncio")


def rewinds(stall: _Stall, sequence: int, until_s: float, *, from_s: float = 0.0) -> list[float]:
    """The seconds at which a rewind is due when the same waiting watermark is seen every second."""
    times = [from_s + second for second in range(round(until_s - from_s))]
    return [now_s for now_s in times if stall.is_over(sequence, True, now_s)]


def test_a_watermark_that_waits_is_given_some_time() -> None:
    stall = _Stall()
    assert rewinds(stall, 4, STALL_S) == []
    assert stall.is_over(4, True, STALL_S)


def test_each_rewind_for_the_same_watermark_waits_twice_as_long_up_to_a_bound() -> None:
    times = rewinds(_Stall(), 4, 600)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == STALL_S
    assert pauses[:4] == [6, 12, 24, 48]
    assert set(pauses[4:]) == {STALL_MOST_S}


def test_progress_starts_the_patience_anew() -> None:
    stall = _Stall()
    assert rewinds(stall, 4, 30) == [3, 9, 21]
    assert not stall.is_over(5, True, 30)
    assert rewinds(stall, 5, 40, from_s=31) == [33, 39]


def test_nothing_is_due_while_nobody_waits() -> None:
    stall = _Stall()
    assert not any(stall.is_over(4, False, second) for second in range(100))
    assert not stall.is_over(4, True, 100)
    assert stall.is_over(4, True, 102)


@pytest.mark.anyio
async def test_a_wake_up_is_not_lost_while_the_relay_works() -> None:
    relays = Relays(2)
    relays.wake(1)
    began_s = anyio.current_time()
    await relays.wait(1)
    assert anyio.current_time() == began_s
    await relays.wait(1)  # It was used up: now only time passes.
    assert anyio.current_time() == pytest.approx(began_s + POLL_S)


@pytest.mark.anyio
async def test_only_those_who_are_named_are_woken() -> None:
    relays = Relays(3)
    woken_s: dict[int, float] = {}

    async def wait(partition: int) -> None:
        await relays.wait(partition)
        woken_s[partition] = anyio.current_time() - began_s

    began_s = anyio.current_time()
    async with anyio.create_task_group() as group:
        for partition in relays.partitions:
            group.start_soon(wait, partition)
        await anyio.sleep(POLL_S / 2)
        relays.wake(0, 2)
    assert woken_s == {0: pytest.approx(POLL_S / 2), 1: pytest.approx(POLL_S), 2: pytest.approx(POLL_S / 2)}
