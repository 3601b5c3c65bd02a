"""hold_lease and keep_lease on both loops, in virtual time."""

import anyio
import pytest

from common.lease import RELEASE_S, Lease, LeaseLost, check_times, hold_lease, keep_lease
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.common.virtual_leases import UNREACHABLE, Table, VirtualLeases

pytestmark = pytest.mark.anyio

LEASE_S, RENEW_S = 3.0, 0.5
SERVICE = "matching"


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


async def lead_for_ever(store: VirtualLeases) -> None:
    async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
        await anyio.sleep_forever()


async def test_the_lease_lasts_as_long_as_the_body_and_is_given_back_after_it() -> None:
    store = VirtualLeases(Table())
    async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as lease:
        assert (lease.token, lease.partition, lease.holder) == (1, 0, "a")
        await anyio.sleep(60)
        store.table.events.append(("body ended", 0, 1, "a"))
    assert [what for what, *_ in store.table.events] == ["taken", "body ended", "released"]
    assert store.renewals == pytest.approx(60 / RENEW_S, abs=2)
    assert store.table.row(SERVICE, 0).expires_s == anyio.current_time()


async def test_a_hung_store_ends_the_body_before_the_lease_expires() -> None:
    store = VirtualLeases(Table())
    start_s = anyio.current_time()

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.hang = True
            try:
                await anyio.sleep_forever()
            finally:
                assert anyio.current_time() - start_s <= LEASE_S * 2 / 3

    with pytest.raises(LeaseLost, match="matching/0 token 1"):
        await lead()
    assert anyio.current_time() - start_s <= LEASE_S * 2 / 3 + RELEASE_S  # The hung release is bounded.


async def test_slow_renewals_that_come_in_time_keep_the_lease() -> None:
    store = VirtualLeases(Table())
    async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
        store.delay_s = 0.7
        for _ in range(200):
            await anyio.sleep(0.1)
            assert anyio.current_time() < store.table.row(SERVICE, 0).expires_s


async def test_renewals_that_are_too_slow_end_the_body_while_the_row_still_lasts() -> None:
    store = VirtualLeases(Table())

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            await anyio.sleep(10)
            store.delay_s = 0.8
            try:
                await anyio.sleep_forever()
            finally:
                assert anyio.current_time() < store.table.row(SERVICE, 0).expires_s
                store.delay_s = 0.0

    with pytest.raises(LeaseLost):
        await lead()


async def test_a_refused_renewal_ends_the_body_at_the_next_renewal() -> None:
    store = VirtualLeases(Table())
    start_s = anyio.current_time()

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.table.row(SERVICE, 0).token += 1  # A rival has taken over.
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost):
        await lead()
    assert anyio.current_time() - start_s == pytest.approx(RENEW_S)
    assert store.table.row(SERVICE, 0).expires_s > anyio.current_time()  # The rival's time is its own.


async def test_a_renewal_that_fails_ends_the_body() -> None:
    store = VirtualLeases(Table())

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.fail = UNREACHABLE
            try:
                await anyio.sleep_forever()
            finally:
                store.fail = None

    with pytest.raises(LeaseLost):
        await lead()


async def test_a_store_that_cannot_watch_its_session_has_lost_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = VirtualLeases(Table())

    async def broken(lease: Lease) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(store, "disturbed", broken)
    with pytest.raises(LeaseLost):
        await lead_for_ever(store)


async def test_a_lost_session_ends_the_body_at_once() -> None:
    store = VirtualLeases(Table())
    start_s = anyio.current_time()

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            await anyio.sleep(0.1)
            store.cut(SERVICE, 0)
            await anyio.sleep_forever()

    with pytest.raises(LeaseLost):
        await lead()
    assert anyio.current_time() - start_s < 0.11


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_renewal_under_way_is_let_finish_so_that_the_lease_can_be_given_back(cancelled: bool) -> None:
    store = VirtualLeases(Table())
    with anyio.move_on_after(RENEW_S + 0.1 if cancelled else 60):
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.delay_s = 0.2
            await anyio.sleep(RENEW_S + 0.1)
    assert store.renewals == 1
    assert store.table.row(SERVICE, 0).expires_s <= anyio.current_time()


async def test_a_renewal_that_hangs_when_the_body_is_cancelled_is_waited_for_a_little() -> None:
    store = VirtualLeases(Table())
    start_s = anyio.current_time()
    with anyio.move_on_after(1.0):
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.hang = True
            await anyio.sleep_forever()
    assert anyio.current_time() - start_s <= 1.0 + 2 * RELEASE_S + 1e-6


async def test_the_bodys_error_comes_out_alone_and_gives_the_lease_back() -> None:
    store = VirtualLeases(Table())

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await lead()
    assert store.table.events[-1][0] == "released"


async def test_an_error_while_the_lost_body_unwinds_is_the_cause() -> None:
    store = VirtualLeases(Table())

    async def lead() -> None:
        async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
            store.cut(SERVICE, 0)
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError

    with pytest.raises(LeaseLost) as caught:
        await lead()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_cancelled_body_gives_the_lease_back_and_is_not_called_lost() -> None:
    store = VirtualLeases(Table())
    with anyio.move_on_after(1) as scope:
        await lead_for_ever(store)
    assert scope.cancelled_caught
    assert store.table.events[-1][0] == "released"
    assert store.table.row(SERVICE, 0).expires_s == anyio.current_time()


async def test_the_body_may_have_tasks_of_its_own() -> None:
    store = VirtualLeases(Table())
    ended: list[float] = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(anyio.current_time())

    async def lead() -> None:
        async with (
            hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S),
            anyio.create_task_group() as group,
        ):
            group.start_soon(child)
            await anyio.sleep(0.1)
            store.cut(SERVICE, 0)

    with pytest.raises(LeaseLost):
        await lead()
    assert len(ended) == 1


async def test_a_standby_takes_over_when_the_lease_expires() -> None:
    table = Table()
    lease = await VirtualLeases(table).acquire(SERVICE, 0, LEASE_S)
    assert lease is not None
    start_s = anyio.current_time()
    standby = VirtualLeases(table, "b")
    async with hold_lease(standby, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as taken:
        assert taken.token == 2
        assert LEASE_S <= anyio.current_time() - start_s <= LEASE_S + 0.2


async def test_a_standby_takes_over_at_once_when_the_session_has_ended() -> None:
    table = Table()
    store = VirtualLeases(table)
    await store.acquire(SERVICE, 0, LEASE_S)
    store.cut(SERVICE, 0)
    start_s = anyio.current_time()
    async with hold_lease(VirtualLeases(table, "b"), SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S):
        assert anyio.current_time() == start_s


async def test_two_rivals_never_lead_at_the_same_time_and_tokens_only_grow() -> None:
    table = Table()
    leading: list[str] = []
    tokens: list[int] = []

    async def rival(store: VirtualLeases) -> None:
        while True:
            async with hold_lease(store, SERVICE, 0, lease_s=LEASE_S, renew_s=RENEW_S) as lease:
                leading.append(store.holder)
                tokens.append(lease.token)
                assert len(leading) == 1
                await anyio.sleep(1)
                leading.remove(store.holder)
            await anyio.sleep(0.3)

    with anyio.move_on_after(60):
        async with anyio.create_task_group() as group:
            for holder in "abc":
                group.start_soon(rival, VirtualLeases(table, holder))
    assert tokens == sorted(set(tokens))
    assert len(tokens) > 30


@pytest.mark.parametrize(
    ("lease_s", "renew_s"), [(3.0, 1.5), (3.0, 3.0), (3.0, 0.0), (3.0, -1.0), (0.0, 0.0)]
)
async def test_times_that_cannot_work_are_refused(lease_s: float, renew_s: float) -> None:
    with pytest.raises(ValueError, match="renew_s"):
        check_times(lease_s, renew_s)
    store = VirtualLeases(Table())
    with pytest.raises(ValueError, match="renew_s"):
        await hold_lease(store, SERVICE, 0, lease_s=lease_s, renew_s=renew_s).__aenter__()
    assert store.table.events == []


async def test_a_lease_that_was_acquired_too_late_is_not_led() -> None:
    store = VirtualLeases(Table())
    await anyio.sleep(10)
    stale = Lease(SERVICE, 0, 1, "a", anyio.current_time() - LEASE_S)
    ran = False

    async def lead() -> None:
        nonlocal ran
        async with keep_lease(store, stale, lease_s=LEASE_S, renew_s=RENEW_S):
            await anyio.lowlevel.checkpoint()
            ran = True

    with pytest.raises(LeaseLost):
        await lead()
    assert not ran
