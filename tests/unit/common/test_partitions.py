"""share_partitions on both loops, in virtual time: who leads what, and what an error costs."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import pairwise

import anyio
import pytest
from prometheus_client import REGISTRY

from common.health import Health
from common.lease import Lease
from common.partitions import LAST_BACKOFF_S, share_partitions
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.common.virtual_leases import UNREACHABLE, Table, VirtualLeases

pytestmark = pytest.mark.anyio

LEASE_S, RENEW_S = 3.0, 0.5
SERVICE = "matching"
PARTITIONS = range(4)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Instance:
    """One process: its store, and what it leads now."""

    def __init__(self, table: Table, holder: str) -> None:
        self.store = VirtualLeases(table, holder)
        self.leads: set[int] = set()
        self.begun: list[tuple[int, float]] = []
        self.scope = anyio.CancelScope()
        self.health = Health()

    async def lead(self, lease: Lease) -> None:
        assert lease.partition not in self.leads
        self.leads.add(lease.partition)
        self.begun.append((lease.partition, anyio.current_time()))
        try:
            await anyio.sleep_forever()
        finally:
            self.leads.discard(lease.partition)

    async def run(
        self,
        lead: Callable[[Lease], Awaitable[None]] | None = None,
        partitions: Sequence[int] = PARTITIONS,
    ) -> None:
        with self.scope:
            await share_partitions(
                self.store,
                SERVICE,
                partitions,
                lead or self.lead,
                lease_s=LEASE_S,
                renew_s=RENEW_S,
                health=self.health,
            )


def sample(name: str, partition: int) -> float | None:
    return REGISTRY.get_sample_value(name, {"service": SERVICE, "partition": str(partition)})


async def test_one_instance_leads_everything_within_half_a_second() -> None:
    one = Instance(Table(), "a")
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        await anyio.sleep(0.5)
        assert one.leads == set(PARTITIONS)
        assert [sample("exchange_leader", number) for number in PARTITIONS] == [1, 1, 1, 1]
        assert sample("exchange_fencing_token", 0) == 1
        assert one.health.ready
        one.scope.cancel()
    assert one.leads == set()
    assert [sample("exchange_leader", number) for number in PARTITIONS] == [0, 0, 0, 0]
    released = [event for event in one.store.table.events if event[0] == "released"]
    assert len(released) == len(PARTITIONS)


@pytest.mark.parametrize("apart_s", [0.0, 0.03, 0.07])
async def test_two_instances_that_start_together_split_evenly(apart_s: float) -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        await anyio.sleep(apart_s)
        group.start_soon(two.run)
        await anyio.sleep(2)
        assert (len(one.leads), len(two.leads)) == (2, 2)
        assert one.leads | two.leads == set(PARTITIONS)
        group.cancel_scope.cancel()


async def test_a_stopped_instance_hands_over_and_never_two_lead() -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        group.start_soon(two.run)
        await anyio.sleep(10)
        one.scope.cancel()
        await anyio.sleep(0.15)
        assert two.leads == set(PARTITIONS)
        group.cancel_scope.cancel()
    owner: dict[int, str] = {}
    for what, partition, _, holder in table.events:
        if what == "taken":
            assert partition not in owner
            owner[partition] = holder
        else:
            assert owner.pop(partition) == holder


async def test_what_a_dead_instance_led_is_taken_within_one_poll() -> None:
    table = Table()
    one, two = Instance(table, "a"), Instance(table, "b")
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        group.start_soon(two.run)
        await anyio.sleep(10.04)
        died_s = anyio.current_time()
        dead = one.leads.copy()
        one.scope.shield = True  # It is dead: nothing of it runs, least of all its release.
        one.store.hang = True
        for number in dead:
            one.store.cut(SERVICE, number)
        await anyio.sleep(0.2)
        taken = {number: at_s for number, at_s in two.begun if number in dead}
        assert set(taken) == dead
        assert max(taken.values()) - died_s <= 0.1 + 1e-6
        one.scope.shield = False
        group.cancel_scope.cancel()


async def test_an_error_backs_off_alone_and_doubles_up_to_a_limit() -> None:
    one = Instance(Table(), "a")
    tries_s: list[float] = []

    async def lead(lease: Lease) -> None:
        if lease.partition == 1:
            await one.lead(lease)
        tries_s.append(anyio.current_time())
        raise ZeroDivisionError

    before = sample("exchange_lead_failures_total", 0) or 0
    async with anyio.create_task_group() as group:
        group.start_soon(partial(one.run, lead, range(2)))
        await anyio.sleep(30)
        assert one.leads == {1}
        group.cancel_scope.cancel()
    pauses_s = [later - earlier for earlier, later in pairwise(tries_s)]
    assert pauses_s[:4] == pytest.approx([0.5, 1, 2, 4], abs=0.35)
    assert pauses_s[4:] == pytest.approx([LAST_BACKOFF_S] * len(pauses_s[4:]), abs=0.35)
    assert (sample("exchange_lead_failures_total", 0) or 0) - before == len(tries_s)


async def test_a_rival_takes_what_an_instance_fails_to_lead() -> None:
    table = Table()
    broken, sound = Instance(table, "a"), Instance(table, "b")

    async def fail(lease: Lease) -> None:
        raise ZeroDivisionError

    async with anyio.create_task_group() as group:
        group.start_soon(broken.run, fail)
        await anyio.sleep(0.2)
        group.start_soon(sound.run)
        await anyio.sleep(10)
        assert sound.leads == set(PARTITIONS)
        group.cancel_scope.cancel()


async def test_a_lost_lease_is_tried_for_again() -> None:
    one = Instance(Table(), "a")
    before = sample("exchange_leases_lost_total", 2) or 0
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        await anyio.sleep(5)
        one.store.cut(SERVICE, 2)
        await anyio.sleep(1)
        assert one.leads == set(PARTITIONS)
        assert sample("exchange_fencing_token", 2) == 2
        assert (sample("exchange_leases_lost_total", 2) or 0) - before == 1
        group.cancel_scope.cancel()


async def test_a_leader_that_returns_steps_down() -> None:
    one = Instance(Table(), "a")
    turns = 0

    async def lead(lease: Lease) -> None:
        nonlocal turns
        turns += 1
        await anyio.sleep(1)

    async with anyio.create_task_group() as group:
        group.start_soon(partial(one.run, lead, [0]))
        await anyio.sleep(16)
        group.cancel_scope.cancel()
    assert turns == pytest.approx(10, abs=1)  # 1 s of leading, 0.5 s of leaving alone, a poll.


async def test_a_store_out_of_reach_is_told_and_waited_for() -> None:
    one = Instance(Table(), "a")
    async with anyio.create_task_group() as group:
        one.store.fail = UNREACHABLE
        group.start_soon(one.run)
        await anyio.sleep(2)
        assert not one.health.ready
        assert one.leads == set()
        one.store.fail = None
        await anyio.sleep(1.5)
        assert one.health.ready
        assert one.leads == set(PARTITIONS)
        group.cancel_scope.cancel()


async def test_a_takeover_that_waits_holds_up_no_other_partition() -> None:
    table = Table()
    dead, standby = VirtualLeases(table, "dead"), Instance(table, "b")
    for number in PARTITIONS:
        await dead.acquire(SERVICE, number, LEASE_S)
        dead.cut(SERVICE, number)
    acquire = standby.store.acquire

    async def waiting(service: str, partition: int, lease_s: float) -> Lease | None:
        if partition == 0:
            await anyio.sleep(2)  # For the transactions of the last leader.
        return await acquire(service, partition, lease_s)

    standby.store.acquire = waiting  # type: ignore[method-assign]  # a fault, ordered for this test alone
    async with anyio.create_task_group() as group:
        group.start_soon(standby.run)
        await anyio.sleep(0.1)
        assert standby.leads == {1, 2, 3}
        await anyio.sleep(2.5)
        assert standby.leads == set(PARTITIONS)
        group.cancel_scope.cancel()


async def test_times_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="renew_s"):
        await share_partitions(
            VirtualLeases(Table()), SERVICE, [0], Instance(Table(), "a").lead, lease_s=1, renew_s=1
        )
