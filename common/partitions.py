"""Several instances of a service share its partitions, each led under a lease by one of them.

An instance is a standby for every partition it does not lead. Two instances that start together split
evenly, because the more one holds, the longer it leaves a vacant lease to others. One that was held a
moment ago (its holder died, or gave it back) is taken at once by whoever sees it: a partition without a
leader is worse than an uneven split. Nothing moves a partition away from a healthy leader.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup
from prometheus_client import Counter, Gauge

from common.core.errors import Unavailable
from common.health import Health
from common.lease import POLL_S, Lease, LeaseLost, LeaseStore, Standing, check_times, keep_lease
from common.supervise import leaves
from common.telemetry import get_logger

DECISION_S = 0.25  # How long one takeover may hold up the look at the next partition.
COURTESY_S = 0.1  # Longer wait for a vacant lease, for each one already held.
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 5.0
STEADY_S = 30.0  # Who led for so long without failing has a clean slate.

log = get_logger(__name__)

_leader = Gauge("exchange_leader", "1 while this process leads the partition", ["service", "partition"])
_token = Gauge("exchange_fencing_token", "Token of the lease last held", ["service", "partition"])
_taken = Counter("exchange_leases_taken_total", "Leases acquired", ["service", "partition"])
_lost = Counter("exchange_leases_lost_total", "Leases lost while leading", ["service", "partition"])
_failed = Counter("exchange_lead_failures_total", "Leaders that raised an error", ["service", "partition"])

Lead = Callable[[Lease], Awaitable[None]]


async def share_partitions(
    store: LeaseStore,
    service: str,
    partitions: Sequence[int],
    lead: Lead,
    *,
    lease_s: float,
    renew_s: float,
    health: Health | None = None,
) -> None:
    """Lead what can be led, until cancelled; then every body is cancelled and its lease given back.

    `lead(lease)` runs while its lease lasts. When it raises, the lease is given back and the partition
    left alone for 0.5 s, doubling to 5 s; when it returns, likewise, once: that is how a leader steps down.
    The health part "leases" tells whether the store answers. Raises ValueError for times that cannot work.
    """
    check_times(lease_s, renew_s)
    share = _Share(store, service, lead, lease_s, renew_s, health)
    async with anyio.create_task_group() as group:
        await share.run(group, {number: _Partition(service, number) for number in partitions})


class _Partition:
    """What one instance knows of one partition."""

    def __init__(self, service: str, number: int) -> None:
        self.labels = (service, str(number))
        self.busy = False  # Led by this process, or being tried for.
        self.seen_held = False
        self.vacant_since_s: float | None = None
        self.not_before_s = 0.0
        self.backoff_s = FIRST_BACKOFF_S
        _leader.labels(*self.labels).set(0)

    def leave_alone(self, now_s: float) -> None:
        self.not_before_s = now_s + self.backoff_s
        self.backoff_s = min(self.backoff_s * 2, LAST_BACKOFF_S)


@dataclass(frozen=True)
class _Share:
    """The part of one instance in one service."""

    store: LeaseStore
    service: str
    lead: Lead
    lease_s: float
    renew_s: float
    health: Health | None

    async def run(self, group: TaskGroup, partitions: dict[int, _Partition]) -> None:
        trouble = False
        while True:
            try:
                await self._look_round(group, partitions)
            except Unavailable as error:
                if not trouble:
                    log.warning("leases out of reach", service=self.service, error=error.message)
                trouble = True
                self._report(False, error.message)
                await anyio.sleep(FIRST_BACKOFF_S)
            else:
                trouble = False
                self._report(True)
                await anyio.sleep(POLL_S)

    async def _look_round(self, group: TaskGroup, partitions: dict[int, _Partition]) -> None:
        """Look at every lease that is not ours, and take the ones whose time has come, one by one."""
        now_s = anyio.current_time()
        wanted = [
            number for number, known in partitions.items() if not known.busy and known.not_before_s <= now_s
        ]
        if not wanted:
            return
        standings = await self.store.look(self.service, wanted)
        for number in wanted:
            known = partitions[number]
            held = sum(each.busy for each in partitions.values())
            if not _is_time(known, standings[number], held):
                continue
            known.busy = True
            contended = standings[number] is Standing.VACANT and not known.seen_held
            decided = anyio.Event()
            group.start_soon(self._turn, number, known, decided, name=f"lead {self.service}/{number}")
            if contended:
                # So that courtesy counts what we got. A takeover that waits for transactions of the
                # last leader must not keep the other partitions waiting.
                with anyio.move_on_after(DECISION_S):
                    await decided.wait()

    async def _turn(self, number: int, known: _Partition, decided: anyio.Event) -> None:
        """Try for the lease and, when it is ours, lead."""
        try:
            lease = await self.store.acquire(self.service, number, self.lease_s)
            if lease is not None:
                decided.set()
                known.seen_held = False
                known.vacant_since_s = None
                await self._lead(lease, known)
        except Unavailable as error:
            log.warning("lease not taken", service_led=self.service, partition=number, error=error.message)
            known.not_before_s = anyio.current_time() + FIRST_BACKOFF_S
        finally:
            known.busy = False
            decided.set()

    async def _lead(self, lease: Lease, known: _Partition) -> None:
        """Lead until the lease or the leader ends; an error ends this partition's turn and nothing else."""
        _taken.labels(*known.labels).inc()
        _token.labels(*known.labels).set(lease.token)
        _leader.labels(*known.labels).set(1)
        about = {"service_led": self.service, "partition": lease.partition, "fencing_token": lease.token}
        log.info("leading", **about)
        begun_s = anyio.current_time()
        try:
            async with keep_lease(self.store, lease, lease_s=self.lease_s, renew_s=self.renew_s):
                await self.lead(lease)
            log.info("stepped down", **about)
            known.backoff_s = FIRST_BACKOFF_S
            known.leave_alone(anyio.current_time())
        except LeaseLost as error:
            _lost.labels(*known.labels).inc()
            log.warning("lease lost", **about, cause=repr(error.__cause__) if error.__cause__ else None)
        except Exception as error:
            _failed.labels(*known.labels).inc()
            if anyio.current_time() - begun_s >= STEADY_S:
                known.backoff_s = FIRST_BACKOFF_S
            for leaf in leaves(error):
                log.error("leader failed", **about, error=repr(leaf), exc_info=leaf)
            known.leave_alone(anyio.current_time())
        finally:
            _leader.labels(*known.labels).set(0)

    def _report(self, ok: bool, detail: str = "") -> None:
        if self.health is not None:
            self.health.set("leases", ok, detail)


def _is_time(known: _Partition, standing: Standing, held: int) -> bool:
    """Whether to try for a lease of this standing now, holding `held` others; remembers what it saw."""
    if standing is Standing.HELD:
        known.seen_held = True
        return False
    if standing is Standing.ORPHANED or known.seen_held:
        return True
    now_s = anyio.current_time()
    if known.vacant_since_s is None:
        known.vacant_since_s = now_s
    return now_s - known.vacant_since_s >= held * COURTESY_S
