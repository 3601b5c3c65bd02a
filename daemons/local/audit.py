"""`exchange audit`: the checks of `common.audit` on an exchange that runs, or that is stopped."""

import json
from collections.abc import Sequence
from decimal import Decimal

from common.audit import MOST_ROWS, Finding, audit
from common.config import Settings
from common.db import connect
from common.stops import Stop, read_stops
from daemons.local.operator import reachable_postgres


async def read_audit(settings: Settings) -> tuple[list[Finding], list[Stop]]:
    """Run every check, in one read-only snapshot; with it the partitions that stand still now."""
    async with (
        reachable_postgres(settings, _quiet) as url,
        connect(url, "exchange audit") as connection,
    ):
        return await audit(connection), await read_stops(connection)


def _quiet(line: str) -> None:
    """The answer is for programs too, so progress stays out of it."""


def audit_as_text(findings: Sequence[Finding], stops: Sequence[Stop]) -> str:
    """A line for each check, the rows that break it below; a stop is told, and is no violation."""
    lines = []
    for finding in findings:
        lines.append(
            f"{'ok      ' if finding.ok else 'VIOLATED'}  {finding.name} ({finding.looked_at:,} rows)"
        )
        for row in finding.rows:
            cells = (f"{name} {_plain(cell)}" for name, cell in zip(finding.columns, row, strict=True))
            lines.append("          " + ", ".join(cells))
        if len(finding.rows) == MOST_ROWS:
            lines.append(f"          (the first {MOST_ROWS}; there may be more)")
    for stop in stops:
        lines.append(f"stopped   partition {stop.partition}, {stop.service}: {stop.reason}")
    violated = sum(not finding.ok for finding in findings)
    lines.append(f"{violated} of {len(findings)} checks violated" if violated else "Everything adds up.")
    return "\n".join(lines)


def audit_as_json(findings: Sequence[Finding], stops: Sequence[Stop]) -> str:
    """`rows` are objects by column; amounts beyond 2**53 stay integers."""
    checks = [
        {
            "name": finding.name,
            "ok": finding.ok,
            "looked_at": finding.looked_at,
            "rows": [dict(zip(finding.columns, map(_plain, row), strict=True)) for row in finding.rows],
        }
        for finding in findings
    ]
    stopped = [
        {"partition": stop.partition, "service": stop.service, "reason": stop.reason} for stop in stops
    ]
    ok = all(finding.ok for finding in findings)
    return json.dumps({"ok": ok, "checks": checks, "stopped": stopped}, indent=2)


def _plain(cell: object) -> object:
    """A cell as JSON has it: sums come as decimals, though all are whole numbers of atoms."""
    if isinstance(cell, Decimal):
        return int(cell) if cell == cell.to_integral_value() else str(cell)
    return cell.hex() if isinstance(cell, bytes) else cell
