"""What a run was and what came of it: filled by the runner, written down by the report."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.chaos.judgement import Verdict


@dataclass(frozen=True, slots=True)
class Ran:
    """One fault. Times in seconds since the load began; `stops`: by market, the longest without a trade."""

    number: int
    kind: str
    fault: str
    began_s: float
    healed_s: float
    recovered_s: float
    stops: Mapping[int, float]

    @property
    def stop_s(self) -> float:
        """Of the market that stood longest."""
        return max(self.stops.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class Audited:
    at_s: float
    checks: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Replayed:
    at_s: float
    commands: int
    orders: int
    trades: int
    points: int
    digests: int
    seconds: float


@dataclass
class Outcome:
    """`failure` is empty when everything held; else the evidence."""

    seed: int
    machine: str
    daemons: str
    asked_s: float = 0.0  # No new fault began after so long.
    began_at: str = ""
    seconds: float = 0.0
    ran: list[Ran] = field(default_factory=list)
    rests: list[tuple[float, float]] = field(default_factory=list)  # When the load stood still on purpose.
    audits: list[Audited] = field(default_factory=list)
    replays: list[Replayed] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)
    accepted_by_s: Counter[int] = field(default_factory=Counter)
    trades_by_s: Counter[int] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    silences: int = 0
    resyncs: int = 0
    failure: str = ""
