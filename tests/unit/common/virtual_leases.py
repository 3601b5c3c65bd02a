"""A store of leases in memory, on the loop's (virtual) clock, with faults to order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from common.core.errors import Unavailable
from common.lease_base import Lease, Standing


@dataclass
class Row:
    token: int = 0
    expires_s: float = float("-inf")
    session: anyio.Event | None = None  # Set when the holder's session has ended.


@dataclass
class Table:
    """What all stores share, as instances share a database."""

    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    events: list[tuple[str, int, int, str]] = field(default_factory=list)  # What, partition, token, holder.

    def row(self, service: str, partition: int) -> Row:
        return self.rows.setdefault((service, partition), Row())

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

    async def _reach(self) -> None:
        if self.fail is not None:
            raise self.fail
        await anyio.sleep(self.delay_s)
        if self.hang:
            await anyio.sleep_forever()

    async def look(self, service: str, partitions: Sequence[int]) -> Mapping[int, Standing]:
        await self._reach()
        return {number: self.table.standing(self.table.row(service, number)) for number in partitions}

    async def acquire(self, service: str, partition: int, lease_s: float) -> Lease | None:
        sent_s = anyio.current_time()
        await self._reach()
        row = self.table.row(service, partition)
        if self.table.standing(row) is Standing.HELD:
            return None
        row.token += 1
        row.expires_s = anyio.current_time() + lease_s
        row.session = anyio.Event()
        self.table.events.append(("taken", partition, row.token, self.holder))
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
        self.table.events.append(("released", lease.partition, lease.token, self.holder))
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
