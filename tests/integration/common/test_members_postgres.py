"""Members, spare sessions and handovers on a real PostgreSQL."""

from typing import Any

import anyio
import pytest

from common.db import Connection
from common.lease import Lease, PostgresLeases
from common.partitions import share_partitions
from tests.integration.common.test_lease_postgres import (
    LEASE_S,
    RENEW_S,
    SERVICE,
    acquired,
    end_sessions,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_members_see_one_another_and_who_leads_what(one: PostgresLeases, two: PostgresLeases) -> None:
    first = await one.attend(SERVICE, True, LEASE_S)
    assert (first.me, first.leaders) == ("one", {})
    assert set(first.members) == {"one"}
    await acquired(one)
    await two.attend("settlement", True, LEASE_S)  # Another service: seen by nobody here.
    await two.attend(SERVICE, False, LEASE_S)
    seen = await one.attend(SERVICE, True, LEASE_S)
    assert {name: member.ready for name, member in seen.members.items()} == {"one": True, "two": False}
    assert seen.leaders == {0: "one"}
    await two.leave(SERVICE)
    await two.leave(SERVICE)
    assert set((await one.attend(SERVICE, True, LEASE_S)).members) == {"one"}


async def test_a_member_is_steady_until_it_changes_or_comes_anew(url: str, one: PostgresLeases) -> None:
    async def steady_s(store: PostgresLeases, ready: bool = True, ttl_s: float = LEASE_S) -> float:
        return (await store.attend(SERVICE, ready, ttl_s)).members["one"].steady_s

    assert await steady_s(one) < 0.4
    await anyio.sleep(0.5)
    assert await steady_s(one) >= 0.5
    assert await steady_s(one, ready=False) < 0.4
    await anyio.sleep(0.5)
    assert await steady_s(one, ready=False, ttl_s=0.01) >= 0.5
    await anyio.sleep(0.05)
    assert await steady_s(one, ready=False) < 0.4  # It had expired, as that of a process that froze.
    await anyio.sleep(0.5)
    async with PostgresLeases(url, "one") as again:  # A new process of the same name.
        assert await steady_s(again, ready=False) < 0.4


async def test_members_that_went_without_a_word_expire_and_are_forgotten(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    await two.attend(SERVICE, True, 0.05)
    await anyio.sleep(0.1)
    assert set((await one.attend(SERVICE, True, LEASE_S)).members) == {"one"}
    await admin.execute("UPDATE service_members SET expires_at = expires_at - interval '1 hour'")
    await one.leave(SERVICE)
    await one.attend(SERVICE, True, LEASE_S)
    cursor = await admin.execute("SELECT member FROM service_members")
    assert await cursor.fetchall() == [("one",)]


async def test_a_standby_keeps_a_spare_session_for_each_lease_and_takes_over_in_it(
    one: PostgresLeases, two: PostgresLeases, admin: Connection
) -> None:
    async def sessions(name: str) -> int:
        cursor = await admin.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            (name,),
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    leases = [await one.acquire(SERVICE, number, 60) for number in range(2)]
    with anyio.fail_after(10):
        while await sessions("lease spare") < 2:
            await two.look(SERVICE, range(2))
            await anyio.sleep(0.02)
    assert leases[0] is not None
    await one.release(leases[0])
    assert (await acquired(two)).token == 2
    assert await sessions("lease spare") == 1
    await end_sessions(admin, "lease spare")  # One that died is not used.
    assert leases[1] is not None
    await one.release(leases[1])
    assert await two.acquire(SERVICE, 1, LEASE_S)
    assert await sessions(f"lease {SERVICE}/1") == 1


async def test_one_that_joins_is_given_its_share_without_a_long_stop(url: str) -> None:
    """Both on one server: two stop for a moment each, the others never."""
    leads: dict[str, set[int]] = {"one": set(), "two": set()}
    ended_s: dict[int, float] = {}
    gaps_s: list[float] = []

    async def lead(lease: Lease) -> None:
        leads[lease.holder].add(lease.partition)
        if lease.partition in ended_s:
            gaps_s.append(anyio.current_time() - ended_s[lease.partition])
        try:
            await anyio.sleep_forever()
        finally:
            leads[lease.holder].discard(lease.partition)
            ended_s[lease.partition] = anyio.current_time()

    async def instance(name: str) -> None:
        async with PostgresLeases(url, name) as store:
            await share_partitions(store, SERVICE, range(4), lead, lease_s=LEASE_S, renew_s=RENEW_S)

    async with anyio.create_task_group() as group:
        group.start_soon(instance, "one")
        with anyio.fail_after(10):
            while len(leads["one"]) < 4:
                await anyio.sleep(0.01)
        group.start_soon(instance, "two")
        with anyio.fail_after(30):
            while len(leads["two"]) < 2:
                await anyio.sleep(0.01)
        await anyio.sleep(2)
        assert (len(leads["one"]), len(leads["two"])) == (2, 2)
        group.cancel_scope.cancel()
    assert len(gaps_s) == 2
    assert max(gaps_s) < 1.0  # Some tens of ms where nothing else runs.
