"""PostgresLeases on a real PostgreSQL: takeover, fences, dead sessions, and rivals that never overlap."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import anyio
import anyio.abc
import pytest

from common.core.errors import Unavailable
from common.db import Connection, connect
from common.lease import Lease, LeaseLost, PostgresLeases, Standing, hold_lease, keep_lease
from common.partitions import share_partitions

pytestmark = pytest.mark.anyio

SERVICE = "matching"
LEASE_S, RENEW_S = 3.0, 0.5


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def acquired(store: PostgresLeases, lease_s: float = LEASE_S) -> Lease:
    lease = await store.acquire(SERVICE, 0, lease_s)
    assert lease is not None
    return lease


async def standing(store: PostgresLeases) -> Standing:
    return (await store.look(SERVICE, [0]))[0]


async def row(admin: Connection) -> tuple[str, int, timedelta]:
    """Holder, token, and how long the lease still lasts by the server's clock."""
    cursor = await admin.execute(
        "SELECT holder, fencing_token, expires_at - clock_timestamp() FROM partition_leader_locks"
        " WHERE service = %s AND partition = 0",
        (SERVICE,),
    )
    found = await cursor.fetchone()
    assert found is not None
    return found[0], found[1], found[2]


@asynccontextmanager
async def patient(url: str) -> AsyncIterator[Connection]:
    """A session that the server does not end inside a transaction, however slow this machine is."""
    async with connect(url, "settlement") as connection:
        await connection.execute("SET idle_in_transaction_session_timeout = 0")
        yield connection


async def end_sessions(admin: Connection, name: str) -> None:
    """As kill -9 of their process does: the server ends them, nobody says goodbye."""
    await admin.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = current_database()",
        (name,),
    )


async def test_the_first_token_is_one_and_tokens_only_grow(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    assert await standing(one) is Standing.VACANT
    first = await acquired(one)
    assert (first.token, first.holder) == (1, "one")
    assert await standing(two) is Standing.HELD
    assert await two.acquire(SERVICE, 0, LEASE_S) is None
    await one.release(first)
    assert await standing(two) is Standing.VACANT
    second = await acquired(two)
    assert second.token == 2
    holder, token, left = await row(admin)
    assert (holder, token) == ("two", 2)
    assert timedelta(seconds=2) < left <= timedelta(seconds=LEASE_S)


async def test_a_renewal_extends_and_a_stale_one_changes_nothing(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    lease = await acquired(one, lease_s=1.0)
    assert await one.renew(lease, 30.0)
    assert (await row(admin))[2] > timedelta(seconds=20)
    assert await one.renew(lease, 0.001)
    await anyio.sleep(0.01)
    assert not await one.renew(lease, 30.0)  # Expired: it may be somebody else's by now.
    taken = await acquired(two)
    assert taken.token == 2
    assert not await one.renew(lease, 30.0)
    await one.release(lease)  # Of a lease that is lost: harmless.
    assert await standing(one) is Standing.HELD
    assert await two.renew(taken, LEASE_S)


async def test_an_expired_lease_is_taken_though_its_session_lives(
    one: PostgresLeases, two: PostgresLeases
) -> None:
    await acquired(one, lease_s=0.2)
    assert await two.acquire(SERVICE, 0, LEASE_S) is None
    await anyio.sleep(0.3)
    assert (await acquired(two)).token == 2


async def test_a_dead_session_orphans_the_lease_at_once(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    lease = await acquired(one, lease_s=60)
    await end_sessions(admin, f"lease {SERVICE}/0")
    with anyio.fail_after(5):
        await one.disturbed(lease)
    with pytest.raises(Unavailable):
        await one.renew(lease, 60)
    assert await standing(two) is Standing.ORPHANED
    assert (await acquired(two, lease_s=60)).token == 2
    assert await standing(one) is Standing.HELD


async def test_a_lost_session_ends_the_body_long_before_a_renewal(
    one: PostgresLeases, admin: Connection
) -> None:
    async def lead() -> None:
        async with hold_lease(one, SERVICE, 0, lease_s=100, renew_s=40):
            await end_sessions(admin, f"lease {SERVICE}/0")
            await anyio.sleep_forever()

    with anyio.fail_after(10), pytest.raises(LeaseLost):
        await lead()


async def test_renewals_go_on_beside_the_watch_of_the_session(one: PostgresLeases, admin: Connection) -> None:
    async with hold_lease(one, SERVICE, 0, lease_s=0.6, renew_s=0.05) as lease:
        await anyio.sleep(1.5)
        assert (await row(admin))[1] == lease.token
        assert (await row(admin))[2] > timedelta(0)
    assert (await row(admin))[2] <= timedelta(0)


async def test_a_takeover_waits_for_the_transactions_under_way_and_renewals_do_not(
    one: PostgresLeases, two: PostgresLeases, admin: Connection, url: str
) -> None:
    lease = await acquired(one, lease_s=60)
    taken: list[Lease] = []

    async def take_over() -> None:
        taken.append(await acquired(two, lease_s=3.0))

    async with patient(url) as settlement, settlement.transaction():
        await settlement.execute(
            "SELECT 1 FROM partition_leader_locks"
            " WHERE service = %s AND partition = 0 AND fencing_token = %s FOR KEY SHARE",
            (SERVICE, lease.token),
        )
        with anyio.fail_after(10):
            assert await one.renew(lease, 60)
        await end_sessions(admin, f"lease {SERVICE}/0")
        async with anyio.create_task_group() as group:
            group.start_soon(take_over)
            await anyio.sleep(1.2)
            assert not taken
            assert (await row(admin))[1] == lease.token
            assert await standing(one) is Standing.ORPHANED
            await settlement.execute("COMMIT")
    assert [each.token for each in taken] == [2]
    # The wait was more than a third of the lease, so its time has been started anew.
    assert (await row(admin))[2] > timedelta(seconds=2)


async def test_a_takeover_that_waits_can_be_cancelled(
    one: PostgresLeases, two: PostgresLeases, admin: Connection, url: str
) -> None:
    lease = await acquired(one, lease_s=0.1)
    async with patient(url) as settlement, settlement.transaction():
        await settlement.execute(
            "SELECT 1 FROM partition_leader_locks WHERE service = %s AND partition = 0 FOR KEY SHARE",
            (SERVICE,),
        )
        await anyio.sleep(0.15)
        start_s = anyio.current_time()
        with anyio.move_on_after(0.2) as scope:
            await two.acquire(SERVICE, 0, LEASE_S)
        assert scope.cancelled_caught
        assert anyio.current_time() - start_s < 5
    # The backend that was left may end its UPDATE or its session first; no token is used twice.
    with anyio.fail_after(10):
        async with hold_lease(two, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as taken:
            assert taken.token >= lease.token + 1


async def test_what_the_old_token_writes_is_refused_after_a_takeover(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    old = await acquired(one, lease_s=0.05)
    await anyio.sleep(0.1)
    await acquired(two)
    cursor = await admin.execute(
        "SELECT 1 FROM partition_leader_locks"
        " WHERE service = %s AND partition = 0 AND fencing_token = %s FOR KEY SHARE",
        (SERVICE, old.token),
    )
    assert await cursor.fetchone() is None


async def test_nobody_sees_the_lock_of_a_living_holder_free(url: str, admin: Connection) -> None:
    """Rivals take, lead for an instant and give back; only what has been given back may look orphaned."""
    living = takes = 0
    given_back, seen = set[int](), set[int]()
    done = anyio.Event()

    async def rival(name: str) -> None:
        nonlocal living, takes
        async with PostgresLeases(url, name) as store:
            while not done.is_set():
                lease = await store.acquire(SERVICE, 0, LEASE_S)
                if lease is None:
                    continue
                living += 1
                takes += 1
                assert living == 1
                await anyio.sleep(0.001)
                living -= 1
                given_back.add(lease.token)
                await store.release(lease)

    async def looker() -> None:
        async with PostgresLeases(url, "looker") as store:
            while not done.is_set():
                for each in (await store._rows(SERVICE, [0])).values():
                    if each.standing is Standing.ORPHANED:
                        assert each.token in given_back
                    seen.add(each.token)

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(rival, name)
        group.start_soon(looker)
        while takes < 100:
            await anyio.sleep(0.05)
        done.set()
    assert len(seen) > 10
    assert (await row(admin))[1] == takes  # Each take is one token, none is lost or used twice.


async def test_the_look_out_comes_back_after_its_session_was_ended(
    one: PostgresLeases, admin: Connection
) -> None:
    assert await standing(one) is Standing.VACANT
    await end_sessions(admin, "lease look-out")
    with pytest.raises(Unavailable):
        await standing(one)
    assert await standing(one) is Standing.VACANT


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with PostgresLeases("postgresql://127.0.0.1:9/nothing", "one") as store:
        with pytest.raises(Unavailable, match="leases cannot be reached"):
            await store.acquire(SERVICE, 0, LEASE_S)


async def test_a_store_that_is_left_gives_up_its_sessions(
    url: str, two: PostgresLeases, admin: Connection
) -> None:
    async with PostgresLeases(url, "one") as one:
        await acquired(one, lease_s=60)
    with anyio.fail_after(5):
        while await standing(two) is not Standing.ORPHANED:
            await anyio.sleep(0.01)


async def test_services_and_partitions_are_apart(one: PostgresLeases, two: PostgresLeases) -> None:
    assert await one.acquire("matching", 0, LEASE_S)
    assert await two.acquire("matching", 1, LEASE_S)
    assert await two.acquire("settlement", 0, LEASE_S)
    assert await one.look("matching", [0, 1, 2]) == {
        0: Standing.HELD,
        1: Standing.HELD,
        2: Standing.VACANT,
    }


async def test_two_instances_share_and_one_takes_all_when_the_other_dies(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    leads: dict[str, set[int]] = {"one": set(), "two": set()}

    async def lead(lease: Lease) -> None:
        leads[lease.holder].add(lease.partition)
        try:
            await anyio.sleep_forever()
        finally:
            leads[lease.holder].discard(lease.partition)

    async def instance(
        store: PostgresLeases, *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]
    ) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await share_partitions(store, SERVICE, range(4), lead, lease_s=LEASE_S, renew_s=RENEW_S)

    async with anyio.create_task_group() as group:
        first: anyio.CancelScope = await group.start(instance, one)
        await group.start(instance, two)
        with anyio.fail_after(5):
            while leads["one"] | leads["two"] != set(range(4)):
                await anyio.sleep(0.01)
        assert leads["one"]
        assert leads["two"]
        first.cancel()
        start_s = anyio.current_time()
        with anyio.fail_after(5):
            while leads["two"] != set(range(4)):
                await anyio.sleep(0.01)
        assert anyio.current_time() - start_s < LEASE_S / 2  # Given back, not waited out.
        group.cancel_scope.cancel()
    cursor = await admin.execute(
        "SELECT count(*) FROM partition_leader_locks WHERE expires_at > clock_timestamp()"
    )
    assert await cursor.fetchone() == (0,)


HOLDER = """
import sys
import anyio
from common.lease import PostgresLeases, hold_lease

async def main():
    async with PostgresLeases(sys.argv[1], "other") as store:
        async with hold_lease(store, "matching", 0, lease_s=float(sys.argv[2]), renew_s=0.2):
            print("leading", flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


@pytest.fixture
def other(url: str) -> Iterator[Callable[[float], "subprocess.Popen[str]"]]:
    """Starts another process that leads, under a lease of so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def start(lease_s: float) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, url, str(lease_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "leading\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


async def test_a_killed_process_is_succeeded_long_before_its_lease_expires(
    other: Callable[[float], "subprocess.Popen[str]"], one: PostgresLeases
) -> None:
    process = other(60)
    assert await standing(one) is Standing.HELD
    process.kill()
    start_s = anyio.current_time()
    async with hold_lease(one, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as lease:
        assert lease.token == 2
        assert anyio.current_time() - start_s < 5


async def test_a_frozen_process_is_succeeded_when_its_lease_expires_and_finds_out_on_waking(
    other: Callable[[float], "subprocess.Popen[str]"], one: PostgresLeases
) -> None:
    process = other(1.0)
    process.send_signal(signal.SIGSTOP)
    assert await standing(one) is Standing.HELD  # Its session lives on: only time tells.
    async with hold_lease(one, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as lease:
        assert lease.token == 2
        process.send_signal(signal.SIGCONT)
        with anyio.fail_after(10):
            assert await anyio.to_thread.run_sync(process.wait) == 1  # LeaseLost ended it.
        assert await one.renew(lease, LEASE_S)


async def test_a_renewal_that_hangs_does_not_hold_up_the_end_of_the_body(
    one: PostgresLeases, url: str
) -> None:
    """It hangs on a row lock here, as it would on a server that answers nothing."""
    lease = await acquired(one)

    async def lead() -> None:
        async with keep_lease(one, lease, lease_s=LEASE_S, renew_s=RENEW_S):
            await blocker.execute("SELECT 1 FROM partition_leader_locks FOR UPDATE")
            try:
                await anyio.sleep_forever()
            finally:
                ended_s.append(anyio.current_time())

    ended_s: list[float] = []
    async with patient(url) as blocker, blocker.transaction():
        start_s = anyio.current_time()
        with anyio.fail_after(20), pytest.raises(LeaseLost):
            await lead()
    assert ended_s[0] - start_s < LEASE_S
