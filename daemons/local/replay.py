"""`exchange replay`: the log through a fresh engine, against an exchange that runs, or that is stopped."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from common.config import Settings
from common.core.differences import Difference
from common.db import connect
from common.replay import Report, replay
from daemons.local.operator import reachable_postgres

_CELL = 100  # Characters of a value that are shown.


async def read_replay(settings: Settings, *, points: int, seed: int) -> Report:
    """Replay everything that is settled, in one read-only snapshot; progress goes to stderr."""
    async with (
        reachable_postgres(settings, _progress) as url,
        connect(url, "exchange replay") as connection,
    ):
        return await replay(connection, points=points, seed=seed, progress=_progress)


def _progress(line: str) -> None:
    """The answer on stdout is for programs too."""
    print(line, file=sys.stderr, flush=True)


def replay_as_text(report: Report) -> str:
    """What was replayed, what differs, and what the log costs."""
    lines = []
    for one in report.partitions:
        lines.append(
            f"partition {one.partition}: {one.commands:,} commands in {one.batches:,} batches,"
            f" {one.orders:,} orders, {one.trades:,} trades, {one.digests:,} digests of books"
            + (f", {one.skipped:,} SKIPPED by an operator" if one.skipped else "")
            + (f"; {one.waiting:,} commands wait above the watermark" if one.waiting else "")
            + ("" if one.complete else "; BROKEN OFF")
        )
        if one.points:
            lines.append("    engines restored at " + ", ".join(f"{at:,}" for at in sorted(one.points)))
    lines.append(f"balances: {report.accounts:,} accounts")
    lines.append(_cost(report))
    for difference in report.differences.first:
        lines += _lines(difference)
    count, shown = report.differences.count, len(report.differences.first)
    if count > shown:
        lines.append(f"... and {count - shown:,} more")
    if report.ok:
        lines.append(f"Everything came out the same (seed {report.seed}).")
    else:
        lines.append(f"{count:,} DIFFERENCES (seed {report.seed})")
    return "\n".join(lines)


def replay_as_json(report: Report) -> str:
    """The same as an object; bytes are in hex."""
    answer = {"ok": report.ok, **asdict(report), "digests": report.digests}
    answer |= {"bytes_per_order": _per_order(report), "archive_bytes_per_command": _per_command(report)}
    return json.dumps(answer, indent=2, default=_plain)


def _cost(report: Report) -> str:
    rate = f"{report.commands / report.seconds:,.0f} commands a second" if report.seconds else ""
    cost = _per_order(report)
    return (
        f"log: {cost['commands']:.0f} bytes of commands an order; {cost['archive']:.0f} bytes an order in the"
        f" archive on disk, {_per_command(report):.0f} a command, indexes included"
        f" ({report.archive_bytes:,} bytes for {report.archived_commands:,} commands); {rate}"
    )


def _per_order(report: Report) -> dict[str, float]:
    """Bytes of commands for each order on record, and of the archive for each that is archived."""
    return {
        "commands": report.command_bytes / max(1, report.orders),
        "archive": report.archive_bytes / report.archived_orders if report.archived_orders else 0.0,
    }


def _per_command(report: Report) -> float:
    """Bytes of the archive on disk for each command in it."""
    return report.archive_bytes / report.archived_commands if report.archived_commands else 0.0


def _lines(difference: Difference) -> list[str]:
    return [
        f"DIFFERENT: {difference.what} ({difference.where})",
        f"    expected {_cells(difference.expected)}",
        f"    found    {_cells(difference.found)}",
    ]


def _cells(values: Mapping[str, object] | None) -> str:
    if values is None:
        return "nothing"
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: object) -> str:
    text = str(_plain(value))
    return text if len(text) <= _CELL else f"{text[:_CELL]}... ({len(text)} characters)"


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
