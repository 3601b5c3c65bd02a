"""Several instances balance their partitions when one joins or leaves, and never thrash; virtual time."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from unittest import mock

import anyio
import pytest
from anyio.abc import TaskGroup
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from common import partitions
from common.lease import Lease
from common.lease_balance import PAUSE_S, STEADY_S
from common.partitions import ASIDE_S, ATTEND_S, COLD_S, share_partitions
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.common.virtual_leases import UNREACHABLE, Table, VirtualLeases

pytestmark = pytest.mark.anyio

LEASE_S, RENEW_S = 3.0, 0.5
SERVICE = "matching"
LONG_S = 30.0  # More than any balancing of four takes.


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Instance:
    """One process that shares the partitions."""

    def __init__(self, table: Table, holder: str, count: int = 4) -> None:
        self.store = VirtualLeases(table, holder)
        self.count = count
        self.ready = True
        self.leads: set[int] = set()
        self.unwind_s = 0.0
        self.broken = False
        self.scope = anyio.CancelScope()

    async def lead(self, lease: Lease) -> None:
        if self.broken:
            raise ZeroDivisionError
        assert lease.partition not in self.leads
        self.leads.add(lease.partition)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(self.unwind_s)
            self.leads.discard(lease.partition)

    async def run(self) -> None:
        with self.scope:
            await share_partitions(
                self.store,
                SERVICE,
                range(self.count),
                self.lead,
                lease_s=LEASE_S,
                renew_s=RENEW_S,
                ready=lambda: self.ready,
            )

    def die(self) -> None:
        """As by kill -9: its sessions end, and it says nothing more."""
        for number in self.leads.copy():
            self.store.cut(SERVICE, number)
        self.store.fail = UNREACHABLE
        self.scope.cancel()


@asynccontextmanager
async def running(*instances: Instance, apart_s: float = 1.0) -> AsyncIterator[TaskGroup]:
    """All of them, the later ones started later; ended with the block."""
    async with anyio.create_task_group() as group:
        for number, instance in enumerate(instances):
            await anyio.sleep(apart_s if number else 0)
            group.start_soon(instance.run)
        yield group
        group.cancel_scope.cancel()


def split(instances: Sequence[Instance]) -> list[int]:
    return sorted(len(instance.leads) for instance in instances)


def handovers() -> float:
    samples = (
        REGISTRY.get_sample_value("exchange_handovers_total", {"service": SERVICE, "partition": str(number)})
        for number in range(16)
    )
    return sum(sample or 0.0 for sample in samples)


def longest_gap_s(table: Table) -> float:
    """The longest time that a partition was without a leader, from its events' times."""
    free_s: dict[int, float] = {}
    longest_s = 0.0
    for (what, partition, *_), at_s in zip(table.events, table.event_times_s, strict=True):
        if what == "released":
            free_s[partition] = at_s
        elif partition in free_s:
            longest_s = max(longest_s, at_s - free_s.pop(partition))
    return longest_s


async def test_one_that_joins_is_given_its_share_one_at_a_time_and_quickly() -> None:
    table, before = Table(), handovers()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with running(one, two):
        await anyio.sleep(STEADY_S - 0.5)
        assert split([one, two]) == [0, 4]  # Not steady yet.
        with anyio.fail_after(0.5 + ATTEND_S + 0.2):
            while split([one, two]) != [1, 3]:
                await anyio.sleep(0.01)
        await anyio.sleep(PAUSE_S - 0.1)
        assert split([one, two]) == [1, 3]
        await anyio.sleep(0.5)
        assert split([one, two]) == [2, 2]
        await anyio.sleep(60)
        assert handovers() - before == 2
        assert longest_gap_s(table) <= 0.1
        labels = {"service": SERVICE}
        assert REGISTRY.get_sample_value("exchange_members", labels) == 2
        assert REGISTRY.get_sample_value("exchange_ready_members", labels) == 2


async def test_three_share_four() -> None:
    table, before = Table(), handovers()
    all_three = [Instance(table, name) for name in "abc"]
    async with running(*all_three, apart_s=15):
        await anyio.sleep(LONG_S)
        assert split(all_three) == [1, 1, 2]
        assert handovers() - before == 3  # Two to the second, one to the third.


async def test_two_full_ones_and_a_third_of_four() -> None:
    """Neither has more than its share rounded up, and still the third gets one."""
    table = Table()
    all_three = [Instance(table, name) for name in "abc"]
    async with running(*all_three[:2], apart_s=0) as group:
        await anyio.sleep(2)
        assert split(all_three) == [0, 2, 2]
        before = handovers()
        group.start_soon(all_three[2].run)
        await anyio.sleep(LONG_S)
        assert split(all_three) == [1, 1, 2]
        assert handovers() - before == 1


async def test_what_one_that_leaves_led_is_split_at_once() -> None:
    table = Table()
    one, two, three = (Instance(table, name) for name in "abc")
    async with running(one, two, three, apart_s=10):
        await anyio.sleep(LONG_S)
        before = handovers()
        most = max((one, two, three), key=lambda instance: len(instance.leads))
        most.scope.cancel()
        await anyio.sleep(0.2)
        assert split([one, two, three]) == [0, 2, 2]
        await anyio.sleep(LONG_S)
        assert handovers() == before
        assert longest_gap_s(table) <= 0.15


async def test_the_last_one_left_takes_everything_without_courtesy() -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with running(one, two):
        await anyio.sleep(LONG_S)
        one.scope.cancel()
        await anyio.sleep(0.06)
        assert split([one, two]) == [0, 4]
        assert (SERVICE, "a") not in table.members


@pytest.mark.parametrize("alive_s", [0.5, 2.0, 4.5])
async def test_one_that_crashes_again_and_again_is_given_nothing(alive_s: float) -> None:
    table, before = Table(), handovers()
    steady = Instance(table, "a")
    async with running(steady) as group:
        for _ in range(20):
            looping = Instance(table, "b")
            group.start_soon(looping.run)
            await anyio.sleep(alive_s)
            looping.die()
            await anyio.sleep(0.1)
        assert len(steady.leads) == 4
        assert handovers() == before


async def test_one_that_crashes_with_what_it_was_given_gets_it_ever_less_often() -> None:
    table, before = Table(), handovers()
    steady = Instance(table, "a")
    async with running(steady) as group:
        for _ in range(20):
            looping = Instance(table, "b")
            group.start_soon(looping.run)
            await anyio.sleep(10)
            looping.die()
            await anyio.sleep(0.3)
            assert len(steady.leads) == 4
        assert 1 <= handovers() - before <= 8


async def test_one_that_is_not_ready_is_given_nothing_until_it_is() -> None:
    table, before = Table(), handovers()
    one, two = Instance(table, "a"), Instance(table, "b")
    two.ready = False
    async with running(one, two):
        await anyio.sleep(LONG_S)
        assert len(one.leads) == 4
        assert handovers() == before
        assert REGISTRY.get_sample_value("exchange_ready_members", {"service": SERVICE}) == 1
        two.ready = True
        await anyio.sleep(LONG_S)
        assert split([one, two]) == [2, 2]


async def test_of_two_standbys_the_ready_one_takes_what_a_dead_one_led() -> None:
    table = Table()
    one, cold, warm = (Instance(table, name) for name in "abc")
    cold.ready = False
    async with running(one, cold, warm):
        one.die()
        await anyio.sleep(0.1)
        assert split([cold, warm]) == [0, 4]
        warm.die()
        await anyio.sleep(COLD_S + 0.1)
        assert len(cold.leads) == 4


async def test_a_receiver_that_cannot_lead_costs_one_short_stop_and_a_long_rest() -> None:
    table, before = Table(), handovers()
    one, two = Instance(table, "a"), Instance(table, "b")
    two.broken = True
    async with running(one, two):
        await anyio.sleep(LONG_S)
        assert len(one.leads) == 4
        assert handovers() - before == 1
        await anyio.sleep(200)
        assert len(one.leads) == 4
        assert handovers() - before <= 4
        assert longest_gap_s(table) <= ASIDE_S + 0.2


async def test_a_receiver_that_does_not_take_is_not_waited_for() -> None:
    table, before = Table(), handovers()
    one, two = Instance(table, "a"), Instance(table, "b")

    async def never(service: str, partition: int, lease_s: float) -> Lease | None:
        return None

    two.store.acquire = never  # type: ignore[method-assign]  # a fault, ordered for this test alone
    async with running(one, two):
        await anyio.sleep(LONG_S)
        assert len(one.leads) == 4
        assert handovers() - before == 1
        assert longest_gap_s(table) == pytest.approx(ASIDE_S, abs=0.2)


async def test_a_leader_that_takes_long_to_end_holds_up_the_next_handover() -> None:
    table, before = Table(), handovers()
    one, two = Instance(table, "a"), Instance(table, "b")
    one.unwind_s = 4.0
    async with running(one, two):
        await anyio.sleep(STEADY_S + ATTEND_S + 3)
        assert handovers() - before == 1
        await anyio.sleep(LONG_S)
        assert handovers() - before == 2
        assert split([one, two]) == [2, 2]


async def test_while_the_store_is_out_of_reach_nothing_is_handed_over() -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with running(one, two):
        one.store.fail = two.store.fail = UNREACHABLE
        await anyio.sleep(20)
        assert split([one, two]) == [0, 0]
        one.store.fail = None
        await anyio.sleep(2)
        assert split([one, two]) == [0, 4]
        before = handovers()
        two.store.fail = None  # Its row has expired meanwhile: it joins anew.
        await anyio.sleep(STEADY_S - 0.6)
        assert handovers() == before
        await anyio.sleep(LONG_S)
        assert split([one, two]) == [2, 2]


async def test_an_exchange_at_rest_asks_little() -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with running(one, two, apart_s=0):
        await anyio.sleep(10)
        asked = one.store.asked
        await anyio.sleep(100)
        assert (one.store.asked - asked) / 100 <= 22  # A look each 50 ms, an attendance each second.


@settings(max_examples=8)
@given(
    count=st.integers(1, 8),
    starts_s=st.lists(st.floats(0, 3), min_size=1, max_size=5),
    changes=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=3),
)
async def test_a_change_of_members_costs_at_most_as_many_handovers_as_there_are_partitions(
    count: int, starts_s: list[float], changes: list[tuple[int, bool]]
) -> None:
    with mock.patch.object(
        partitions, "POLL_S", 0.25
    ):  # Nothing here depends on it, but how long this takes.
        table = Table()
        instances = [Instance(table, f"{number}", count) for number in range(len(starts_s))]
        async with anyio.create_task_group() as group:
            for instance, wait_s in zip(instances, starts_s, strict=True):
                group.start_soon(instance.run)
                await anyio.sleep(wait_s)
            before = handovers()
            await settle(instances, count)
            assert handovers() - before <= count
            for which, dies in changes:
                if which >= len(instances) or len(instances) == 1:
                    instances.append(Instance(table, f"later {len(table.events)}", count))
                    group.start_soon(instances[-1].run)
                else:
                    gone = instances.pop(which)
                    gone.die() if dies else gone.scope.cancel()
                before = handovers()
                await settle(instances, count)
                assert handovers() - before <= count
            group.cancel_scope.cancel()


async def settle(instances: list[Instance], count: int) -> None:
    """Long enough for all handovers; then everything is led, evenly, and stays where it is."""
    await anyio.sleep(STEADY_S + 4 * count + 60)  # And for a rest, where one died with what it was given.
    sizes = split(instances)
    assert sum(sizes) == count
    assert sizes[-1] - sizes[0] <= 1
    before = Counter({instance.store.holder: len(instance.leads) for instance in instances})
    await anyio.sleep(20)
    assert before == Counter({instance.store.holder: len(instance.leads) for instance in instances})
