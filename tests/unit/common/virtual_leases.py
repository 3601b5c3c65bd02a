"""A store of leases in memory, on the loop's (virtual) clock, with faults to order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from common.core.errors import Unavailable
from common.lease_base import Attendance, Lease, Member, Standing


@dataclass
class Row:
    token: int = 0
    holder: str = ""
    expires_s: float = float("-inf")
    session: anyio.Event | None = None  # Set when the holder's session has ended.


@dataclass
class Present:
    """The row of one member."""

    ready: bool
    since_s: float
    expires_s: float


@dataclass
class Table:
    """What all stores share, as instances share a database."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    members: dict[tuple[str, str], Present] = field(default_factory=dict)
    events: list[tuple[str, int, int, str]] = field(default_factory=list)  # What, partition, token, holder.
    event_times_s: list[float] = field(default_factory=list)  # Of what the stores did themselves.

    def row(self, service: str, partition: int) -> Row:
        return self.rows.setdefault((service, partition), Row())

    def happened(self, what: str, partition: int, token: int, holder: str) -> None:
        self.events.append((what, partition, token, holder))
        self.event_times_s.append(anyio.current_time())

    def standing(self, row: Row) -> Standing:
        if row.expires_s <= anyio.current_time():
            return Standing.VACANT
        return Standing.ORPHANED if row.session is None or row.session.is_set() else Standing.HELD


class VirtualLeases:
    """One instance's store on a shared table. `hang`, `delay_s` and `fail` act on every call from then on."""

    def __init__(self, table: Table, holder: str = "a") -> None:
        self.table = table
        self.holder = holder
        self.hang = False
        self.delay_s = 0.0
        self.fail: Exception | None = None
        self.renewals = 0
        self.attends: set[str] = set()
        self.asked = 0  # Looks and attendances.

    async def _reach(self) -> None:
        if self.fail is not None:
            raise self.fail
        await anyio.sleep(self.delay_s)
        if self.hang:
            await anyio.sleep_forever()

    async def attend(self, service: str, ready: bool, ttl_s: float) -> Attendance:
        self.asked += 1
        await self._reach()
        now_s = anyio.current_time()
        mine = self.table.members.get((service, self.holder))
        breaks = service not in self.attends or mine is None or mine.expires_s <= now_s
        since_s = now_s if breaks or mine is None or mine.ready != ready else mine.since_s
        self.table.members[service, self.holder] = Present(ready, since_s, now_s + ttl_s)
        self.attends.add(service)
        return Attendance(
            self.holder,
            {
                member: Member(row.ready, now_s - row.since_s)
                for (which, member), row in self.table.members.items()
                if which == service and row.expires_s > now_s
            },
            {
                number: row.holder
                for (which, number), row in self.table.rows.items()
                if which == service and row.expires_s > now_s
            },
        )

    async def leave(self, service: str) -> None:
        await self._reach()
        self.attends.discard(service)
        self.table.members.pop((service, self.holder), None)

    async def look(self, service: str, partitions: Sequence[int]) -> Mapping[int, Standing]:
        self.asked += 1
        await self._reach()
        return {number: self.table.standing(self.table.row(service, number)) for number in partitions}

    async def acquire(self, service: str, partition: int, lease_s: float) -> Lease | None:
        sent_s = anyio.current_time()
        await self._reach()
        row = self.table.row(service, partition)
        if self.table.standing(row) is Standing.HELD:
            return None
        row.token += 1
        row.holder = self.holder
        row.expires_s = anyio.current_time() + lease_s
        row.session = anyio.Event()
        self.table.happened("taken", partition, row.token, self.holder)
        return Lease(service, partition, row.token, self.holder, sent_s)

    async def renew(self, lease: Lease, lease_s: float) -> bool:
        await self._reach()
        row = self.table.row(lease.service, lease.partition)
        if row.token != lease.token or row.session is None or row.session.is_set():
            return False
        self.renewals += 1
        row.expires_s = anyio.current_time() + lease_s
        return True

    async def release(self, lease: Lease) -> None:
        self.table.happened("released", lease.partition, lease.token, self.holder)
        await self._reach()
        row = self.table.row(lease.service, lease.partition)
        if row.token == lease.token:
            row.expires_s = anyio.current_time()

    async def disturbed(self, lease: Lease) -> None:
        session = self.table.row(lease.service, lease.partition).session
        assert session is not None
        await session.wait()

    def cut(self, service: str, partition: int) -> None:
        """End the holder's session, as when its connection is lost."""
        session = self.table.row(service, partition).session
        assert session is not None
        session.set()


UNREACHABLE = Unavailable("the leases cannot be reached")
