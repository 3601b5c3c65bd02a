"""What `exchange audit` and `exchange replay` do, in a process beside the load's: they cost a core.

The process stays, so that a check after each fault does not pay for its start.
"""

import time
from functools import partial

import anyio
from anyio import to_process

from common.audit import Finding
from common.config import Settings
from common.replay import Report
from common.stops import Stop
from daemons.local.audit import audit_as_text, read_audit
from daemons.local.replay import read_replay, replay_as_text
from tests.chaos.outcome import Audited, Replayed
from tests.chaos.world import ChaosFailure

_LIMIT_S = 300.0
_DIGESTS_BY = 10_000  # Commands, over all partitions, by which some books have a digest.


async def audited(postgres_url: str, at_s: float) -> Audited:
    """Raises ChaosFailure with the rows that break a check, or with why a partition stands still."""
    began_s = time.monotonic()
    with anyio.fail_after(_LIMIT_S):
        findings, stops = await to_process.run_sync(_audit, postgres_url, cancellable=True)
    violated = [finding for finding in findings if not finding.ok]
    if violated or stops:
        raise ChaosFailure(f"exchange audit:\n{audit_as_text(violated, stops)}")
    rows = sum(finding.looked_at for finding in findings)
    return Audited(at_s, len(findings), rows, time.monotonic() - began_s)


async def replayed(postgres_url: str, at_s: float, points: int, seed: int) -> Replayed:
    """From the beginning, and from so many random points. Raises ChaosFailure with the differences."""
    with anyio.fail_after(_LIMIT_S):
        report = await to_process.run_sync(_replay, postgres_url, points, seed, cancellable=True)
    if not report.ok:
        raise ChaosFailure(f"exchange replay:\n{replay_as_text(report)}")
    partitions = report.partitions
    if report.commands > _DIGESTS_BY and not any(one.digests for one in partitions):
        raise ChaosFailure(f"no digest of a book among {report.commands:,} commands")
    return Replayed(
        at_s,
        report.commands,
        report.orders,
        sum(one.trades for one in partitions),
        sum(len(one.points) for one in partitions),
        sum(one.digests for one in partitions),
        report.seconds,
    )


def _audit(postgres_url: str) -> tuple[list[Finding], list[Stop]]:
    return anyio.run(partial(read_audit, Settings(postgres_url=postgres_url)))


def _replay(postgres_url: str, points: int, seed: int) -> Report:
    settings = Settings(postgres_url=postgres_url)
    return anyio.run(partial(read_replay, settings, points=points, seed=seed))
