"""Leading a partition while a lease lasts (I5).

Does not promise that only one leads: between a cut connection and the end of the old body two can.
Safety is the fencing token, checked where writes land; this gives liveness and ends a body early
rather than late. Runs on both event loops.

    lease_base       Lease, LeaseLost, Standing, and the protocol LeaseStore
    lease            keep_lease and hold_lease: a body that runs while the lease lasts
    lease_postgres   PostgresLeases: the rows, the sessions, the advisory locks
    partitions       share_partitions: several instances share the partitions of a service
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from common.lease_base import Lease, LeaseLost, LeaseStore, Standing
from common.lease_postgres import PostgresLeases
from common.telemetry import get_logger

__all__ = [
    "Lease",
    "LeaseLost",
    "LeaseStore",
    "PostgresLeases",
    "Standing",
    "check_times",
    "hold_lease",
    "keep_lease",
]

POLL_S = 0.1  # Between two looks of a standby.
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
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_renew, store, lease, leading, lease_s, renew_s)
            with leading:
                try:
                    yield lease
                except Exception as error:
                    failure = error  # Kept from the task group, which would wrap it.
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


async def _renew(
    store: LeaseStore, lease: Lease, leading: anyio.CancelScope, lease_s: float, renew_s: float
) -> None:
    """Move the body's deadline along with each good renewal.

    The deadline stands on the body's own scope: a renewal that hangs cannot hold it up.
    """
    grace_s = check_times(lease_s, renew_s)
    while True:
        try:
            with anyio.move_on_after(renew_s):
                await anyio.sleep(min(SETTLE_S, renew_s))
                await store.disturbed(lease)
            sent_s = anyio.current_time()
            renewed = await store.renew(lease, lease_s)
        except Exception as error:
            log.warning("renewal failed", **_named(lease), error=repr(error))
            renewed = False
        if not renewed:
            leading.cancel()
            return
        leading.deadline = sent_s + grace_s


def _named(lease: Lease) -> dict[str, object]:
    return {"lease": lease.service, "partition": lease.partition, "fencing_token": lease.token}
