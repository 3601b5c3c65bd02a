"""Several instances of a service share its partitions, each led under a lease by one of them.

An instance is a standby for every partition it does not lead. Two instances that start together split
evenly, because the more one holds, the longer it leaves a vacant lease to others. One whose holder died is
taken at once by whoever sees it: a partition without a leader is worse than an uneven split. One that was
given back goes first to who leads the fewest. And who leads two more than another hands over, one
partition at a time and not while instances come and go (`lease_balance`).
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskGroup
from prometheus_client import Counter, Gauge

from common.core.errors import Unavailable
from common.health import Health
from common.lease import (
    POLL_S,
    RELEASE_S,
    Attendance,
    Lease,
    LeaseLost,
    LeaseStore,
    Standing,
    check_times,
    keep_lease,
)
from common.lease_balance import Balance, least_led
from common.supervise import leaves
from common.telemetry import get_logger

DECISION_S = 0.25  # How long one takeover may hold up the look at the next partition.
COURTESY_S = 0.1  # Longer wait for a vacant lease, for each one already held.
COLD_S = 0.25  # Who is not ready leaves a free lease so long to those who are.
ATTEND_S = 1.0  # Between two times of saying that we are there, and seeing who else is.
MEMBER_S = 3.0  # Who has not said so for this long is not there; `STEADY_S` must exceed it.
ASIDE_S = 1.5  # How long the partition that was handed over is left to the others.
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.5, 5.0
STEADY_S = 30.0  # Who led for so long without failing has a clean slate.

log = get_logger(__name__)

_leader = Gauge("exchange_leader", "1 while this process leads the partition", ["service", "partition"])
_token = Gauge("exchange_fencing_token", "Token of the lease last held", ["service", "partition"])
_taken = Counter("exchange_leases_taken_total", "Leases acquired", ["service", "partition"])
_lost = Counter("exchange_leases_lost_total", "Leases lost while leading", ["service", "partition"])
_failed = Counter("exchange_lead_failures_total", "Leaders that raised an error", ["service", "partition"])
_handovers = Counter(
    "exchange_handovers_total", "Partitions handed to another instance", ["service", "partition"]
)
_members = Gauge("exchange_members", "Instances that share the partitions, this one too", ["service"])
_ready = Gauge("exchange_ready_members", "Those of them that could lead at once", ["service"])

Lead = Callable[[Lease], Awaitable[None]]


def _always() -> bool:
    return True


async def share_partitions(
    store: LeaseStore,
    service: str,
    partitions: Sequence[int],
    lead: Lead,
    *,
    lease_s: float,
    renew_s: float,
    health: Health | None = None,
    ready: Callable[[], bool] = _always,
) -> None:
    """Lead what can be led, until cancelled; then every body is cancelled and its lease given back.

    `lead(lease)` runs while its lease lasts. When it raises, the lease is given back and the partition
    left alone for 0.5 s, doubling to 5 s; when it returns, likewise, once: that is how a leader steps down.
    It is cancelled, too, when the partition is handed to another instance; that happens only while that
    one's `ready()` says that it could lead at once.
    The health part "leases" tells whether the store answers. Raises ValueError for times that cannot work.
    """
    check_times(lease_s, renew_s)
    known = {number: _Partition(service, number) for number in partitions}
    share = _Share(store, service, lead, lease_s, renew_s, health, ready, known)
    try:
        async with anyio.create_task_group() as group:
            await share.run(group)
    finally:
        with anyio.move_on_after(RELEASE_S, shield=True), suppress(Unavailable):
            await store.leave(service)  # What is not said expires.


class _Partition:
    """What one instance knows of one partition."""

    def __init__(self, service: str, number: int) -> None:
        self.labels = (service, str(number))
        self.busy = False  # Led by this process, or being tried for.
        self.led: anyio.CancelScope | None = None  # Around the leader, while there is one.
        self.seen_held = False
        self.holder = ""  # Who else led it last. It is dead, going or handing over: no rival for it.
        self.free_since_s: float | None = None
        self.not_before_s = 0.0
        self.aside_until_s = 0.0  # Handed over: another shall take it, or else we do again.
        self.backoff_s = FIRST_BACKOFF_S
        _leader.labels(*self.labels).set(0)

    def leave_alone(self, now_s: float) -> None:
        self.not_before_s = now_s + self.backoff_s
        self.backoff_s = min(self.backoff_s * 2, LAST_BACKOFF_S)


class _Share:
    """The part of one instance in one service."""

    def __init__(
        self,
        store: LeaseStore,
        service: str,
        lead: Lead,
        lease_s: float,
        renew_s: float,
        health: Health | None,
        ready: Callable[[], bool],
        partitions: dict[int, _Partition],
    ) -> None:
        self.store = store
        self.service = service
        self.lead = lead
        self.lease_s = lease_s
        self.renew_s = renew_s
        self.health = health
        self.ready = ready
        self.partitions = partitions
        self.balance = Balance()
        self.seen: Attendance | None = None
        self.attend_at_s = float("-inf")

    async def run(self, group: TaskGroup) -> None:
        trouble = False
        while True:
            try:
                if anyio.current_time() >= self.attend_at_s:
                    self._hand_over(await self._attend())
                await self._look_round(group)
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

    async def _attend(self) -> Attendance:
        """Say that we are there, and see who else is."""
        self.attend_at_s = anyio.current_time() + ATTEND_S
        self.seen = seen = await self.store.attend(self.service, self.ready(), min(self.lease_s, MEMBER_S))
        for number, holder in seen.leaders.items():
            if holder != seen.me and number in self.partitions:
                self.partitions[number].holder = holder
        _members.labels(self.service).set(len(seen.members))
        _ready.labels(self.service).set(sum(member.ready for member in seen.members.values()))
        return seen

    def _hand_over(self, seen: Attendance) -> None:
        """End one of our leaders when another instance should have its partition, and leave that alone."""
        now_s = anyio.current_time()
        leading = {n: known.led for n, known in self.partitions.items() if known.led is not None}
        if any(scope.cancel_called for scope in leading.values()):
            return  # One at a time.
        number = self.balance.choose(seen, leading, len(self.partitions), now_s)
        if number is None:
            return
        log.info("handing over", service_led=self.service, partition=number, members=sorted(seen.members))
        _handovers.labels(*self.partitions[number].labels).inc()
        self.balance.gave(number, now_s)
        leading[number].cancel()

    async def _look_round(self, group: TaskGroup) -> None:
        """Look at every lease that is not ours, and take the ones whose time has come, one by one."""
        now_s = anyio.current_time()
        wanted = [
            number
            for number, known in self.partitions.items()
            if not known.busy and known.not_before_s <= now_s
        ]
        if not wanted:
            return
        standings = await self.store.look(self.service, wanted)
        given_back = [
            known
            for number, known in self.partitions.items()
            if known.seen_held and standings.get(number) is Standing.VACANT
        ]
        if any(self._fewest(known) is not None for known in given_back):
            await self._attend()  # The others may have taken some meanwhile.
        for number in wanted:
            known = self.partitions[number]
            if not self._is_time(known, standings[number]):
                continue
            known.busy = True
            contended = standings[number] is Standing.VACANT and (
                not known.seen_held or self._fewest(known) is not None
            )
            decided = anyio.Event()
            group.start_soon(self._turn, number, known, decided, name=f"lead {self.service}/{number}")
            if contended:
                # So that courtesy counts what we got. A takeover that waits for transactions of the
                # last leader must not keep the other partitions waiting.
                with anyio.move_on_after(DECISION_S):
                    await decided.wait()

    def _fewest(self, known: _Partition) -> int | None:
        """The fewest that a rival for this partition leads, by what was seen last; None without a rival."""
        return None if self.seen is None else least_led(self.seen, but=known.holder)

    def _is_time(self, known: _Partition, standing: Standing) -> bool:
        """Whether to try for a lease of this standing now; remembers what it saw."""
        if standing is Standing.HELD:
            known.seen_held = True
            known.free_since_s = None
            known.aside_until_s = 0.0
            return False
        now_s = anyio.current_time()
        if known.free_since_s is None:
            known.free_since_s = now_s
        if now_s < known.aside_until_s:
            return False
        fewest = self._fewest(known)
        wait_s = 0.0 if fewest is None or self.ready() else COLD_S
        if standing is Standing.VACANT:
            held = sum(each.busy for each in self.partitions.values())
            if known.seen_held:
                held = 0 if fewest is None else max(0, held - fewest)
            wait_s += held * COURTESY_S
        return now_s - known.free_since_s >= wait_s

    async def _turn(self, number: int, known: _Partition, decided: anyio.Event) -> None:
        """Try for the lease and, when it is ours, lead."""
        try:
            lease = await self.store.acquire(self.service, number, self.lease_s)
            if lease is not None:
                decided.set()
                known.seen_held = False
                known.free_since_s = None
                if self.balance.took(number, anyio.current_time()):
                    log.warning("handed over in vain", service_led=self.service, partition=number)
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
                with anyio.CancelScope() as known.led:
                    await self.lead(lease)
            if not known.led.cancel_called:
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
            if known.led is not None and known.led.cancel_called:
                log.info("handed over", **about)
                known.seen_held = True  # By us. If nobody takes it, it is ours again without more waiting.
                known.aside_until_s = anyio.current_time() + ASIDE_S
            known.led = None
            _leader.labels(*known.labels).set(0)

    def _report(self, ok: bool, detail: str = "") -> None:
        if self.health is not None:
            self.health.set("leases", ok, detail)
