"""What a lease is, and what a store of leases must do. Pure."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.core.errors import ExchangeError


class LeaseLost(ExchangeError):
    """Another may lead now, or could not be ruled out in time."""

    code = "LEASE_LOST"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead one partition of a service, as far as a clock can give it."""

    service: str
    partition: int
    token: int  # Fencing token: what its holder writes carries it, and is checked where it lands (I6).
    holder: str
    sent_s: float = 0.0  # Local monotonic clock just before the store was asked: errs on the early side.


class Standing(enum.Enum):
    """How a lease looks to somebody who does not hold it."""

    HELD = "held"
    VACANT = "vacant"  # Never held, given back, or expired.
    ORPHANED = "orphaned"  # Not expired, but the session of its holder is gone.


@dataclass(frozen=True, slots=True)
class Member:
    """One instance of a service, as the others see it."""

    ready: bool  # Could lead at once.
    steady_s: float  # For how long it has been there without a break, and as ready as now.


@dataclass(frozen=True, slots=True)
class Attendance:
    """Who shares the partitions of a service, and who leads what, at one moment of the store's clock."""

    me: str
    members: Mapping[str, Member]  # By name, the asking one too.
    leaders: Mapping[int, str]  # By partition, where the lease has not expired.


class LeaseStore(Protocol):
    """Where leases are kept. Every method may raise Unavailable and can be cancelled at any await."""

    async def look(self, service: str, partitions: Sequence[int]) -> Mapping[int, Standing]:
        """The standing of each of these partitions; cheap enough for twenty times a second."""

    async def attend(self, service: str, ready: bool, ttl_s: float) -> Attendance:
        """Say that this instance is there, for the next `ttl_s`, and see who else is."""

    async def leave(self, service: str) -> None:
        """Say that it is not, from now on. Harmless when it never was."""

    async def acquire(self, service: str, partition: int, lease_s: float) -> Lease | None:
        """Take a lease that is free, with a token above all before it; None when it is not free."""

    async def renew(self, lease: Lease, lease_s: float) -> bool:
        """Let it last `lease_s` from now; False when it is lost."""

    async def release(self, lease: Lease) -> None:
        """Give it back, so that a rival can have it at once. Harmless when it is lost already."""

    async def disturbed(self, lease: Lease) -> None:
        """Return when the lease should be renewed at once to learn whether it is still held.

        A store that has no way to know sleeps for ever.
        """
