"""Leading a partition while a lease lasts (I5).

Does not promise that only one leads: between a cut connection and the end of the old body two can.
Safety is the fencing token, checked where writes land; this gives liveness and ends a body early
rather than late. Runs on both event loops.

    lease_base       Lease, LeaseLost, Standing, Attendance, and the protocol LeaseStore
    lease            keep_lease and hold_lease: a body that runs while the lease lasts
    lease_postgres   PostgresLeases: the rows and the advisory locks; lease_sessions: its connections
    partitions       share_partitions: several instances share the partitions of a service
    lease_balance    which partition a leader hands to another, and when; pure
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from common.lease_base import Attendance, Lease, LeaseLost, LeaseStore, Member, Standing
from common.lease_postgres import PostgresLeases
from common.telemetry import get_logger

__all__ = [
    "Attendance",
    "Lease",
    "LeaseLost",
    "LeaseStore",
    "Member",
    "PostgresLeases",
    "Standing",
    "check_times",
    "hold_lease",
    "keep_lease",
]

POLL_S = 0.05  # Between two looks of a standby: most of what a takeover takes.
RELEASE_S = 1.0  # What giving back may take; the session's end gives it back as well.
SETTLE_S = 0.005  # Least pause between two renewals, should a session never come to rest.

log = get_logger(__name__)


def check_times(lease_s: float, renew_s: float) -> float:
    """How long after the last good renewal was sent the body may still run, in seconds.

    It lies between two renewals and the lease, so that one late renewal costs nothing and the body has
    a third of the lease to unwind in. Raises ValueError for times that cannot work.
    """
    if not 0 < renew_s < lease_s / 2:
        raise ValueError(f"renew_s {renew_s} must be above 0 and less than half of lease_s {lease_s}")
    return lease_s * 2 / 3


@asynccontextmanager
async def hold_lease(
    store: LeaseStore, service: str, partition: int, *, lease_s: float, renew_s: float
) -> AsyncIterator[Lease]:
    """Wait until the lease can be had, then `keep_lease`. Raises Unavailable when the store does."""
    check_times(lease_s, renew_s)
    lease = await _wait_for_lease(store, service, partition, lease_s)
    async with keep_lease(store, lease, lease_s=lease_s, renew_s=renew_s):
        yield lease


@asynccontextmanager
async def keep_lease(
    store: LeaseStore, lease: Lease, *, lease_s: float, renew_s: float
) -> AsyncIterator[Lease]:
    """Renew `lease` while the body runs, and give it back when the body has ended.

    A renewal that is refused or late cancels the body; then LeaseLost is raised, with what the body
    raised meanwhile as its cause. Errors of the body come out as they are, never in a group of ours.
    """
    grace_s = check_times(lease_s, renew_s)
    failure: Exception | None = None
    leading = anyio.CancelScope(deadline=lease.sent_s + grace_s)
    renewals = _Renewals(store, lease, leading)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(renewals.run, lease_s, renew_s)
            try:
                with leading:
                    try:
                        yield lease
                    except Exception as error:
                        failure = error  # Kept from the task group, which would wrap it.
            finally:
                renewals.end()
            group.cancel_scope.cancel()
    finally:
        with anyio.move_on_after(RELEASE_S, shield=True):
            await store.release(lease)  # The body has ended, so a rival may start.
    if leading.cancelled_caught or (failure is not None and leading.cancel_called):
        raise LeaseLost(f"{lease.service}/{lease.partition} token {lease.token}") from failure
    if failure is not None:
        raise failure


async def _wait_for_lease(store: LeaseStore, service: str, partition: int, lease_s: float) -> Lease:
    while True:
        lease = await store.acquire(service, partition, lease_s)
        if lease is not None:
            return lease
        await anyio.sleep(POLL_S)


class _Renewals:
    """Moves the body's deadline along with each good renewal.

    The deadline stands on the body's own scope: a renewal that hangs cannot hold it up. One that is under
    way when a sound body ends is let finish: cut off, it would take with it the session that gives back.
    """

    def __init__(self, store: LeaseStore, lease: Lease, leading: anyio.CancelScope) -> None:
        self._store = store
        self._lease = lease
        self._leading = leading
        self._call = anyio.CancelScope()

    async def run(self, lease_s: float, renew_s: float) -> None:
        """Renew until that fails or the task is cancelled."""
        grace_s = check_times(lease_s, renew_s)
        while True:
            sent_s, renewed = 0.0, False
            try:
                with anyio.move_on_after(renew_s):
                    await anyio.sleep(min(SETTLE_S, renew_s))
                    await self._store.disturbed(self._lease)
                sent_s = anyio.current_time()
                with anyio.CancelScope(shield=True) as self._call:
                    renewed = await self._store.renew(self._lease, lease_s)
            except Exception as error:
                log.warning("renewal failed", **_named(self._lease), error=repr(error))
            if not renewed:
                self._leading.cancel()
                return
            self._leading.deadline = sent_s + grace_s

    def end(self) -> None:
        """The body has ended: let a call under way finish, soon, unless the lease is lost anyway."""
        if self._leading.cancel_called:
            self._call.cancel()
        else:
            self._call.deadline = anyio.current_time() + RELEASE_S


def _named(lease: Lease) -> dict[str, object]:
    return {"lease": lease.service, "partition": lease.partition, "fencing_token": lease.token}
