"""What the replicas of a process share, and what may end one engine's time."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from common import db
from common.config import Settings
from common.kafka import Producer
from common.kafka_reader import Record
from common.lease import Lease

AskRewind = Callable[[int, str], Awaitable[None]]
Report = Callable[[int, str], None]


@dataclass(eq=False)
class Stuck(Exception):
    """What lies at this place cannot be read or applied: a person must look."""

    reason: str
    topic: str = ""
    record: Record | None = None
    sequence: int | None = None

    @property
    def where(self) -> str:
        return f"{self.topic} at offset {self.record.offset}: " if self.record else ""


class Failed(Exception):
    """A batch could not be applied for the first time; a fresh engine tries once more."""


class Behind(Exception):
    """Others have settled what this engine has not seen: a restore is the shorter way."""


ReportStop = Callable[[Lease, Stuck], Awaitable[bool]]


@dataclass(frozen=True)
class Surroundings:
    """What the replicas of a process share. `report` is for readiness, `report_stop` for order-service."""

    settings: Settings
    pool: db.Pool
    producer: Producer
    ask_rewind: AskRewind
    report: Report
    report_stop: ReportStop
