"""A run written down: REPORT.md and its plot."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos.outcome import Outcome
from tests.chaos.plot import plot

_REPORT, _PLOT = "REPORT.md", "throughput.svg"


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write both into `folder`; gives the path of the report."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _PLOT).write_text(plot(outcome))
    path = folder / _REPORT
    path.write_text("\n".join(_lines(outcome)) + "\n")
    return path


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _lines(outcome: Outcome) -> Iterable[str]:
    stops = [ran.stop_s for ran in outcome.ran]
    verdict = "FAILED" if outcome.failure else "Everything held."
    yield "# Chaos: nothing lost, nothing twice"
    yield ""
    minutes, faults = outcome.seconds / 60, len(outcome.ran)
    yield f"**{verdict}** {faults} faults in {minutes:.1f} minutes of live load, seed {outcome.seed}."
    yield f"Again: `make chaos MINUTES={outcome.asked_s / 60:g} SEED={outcome.seed}`."
    yield ""
    if outcome.failure:
        yield from ("```", outcome.failure, "```", "")
    yield f"- Began {outcome.began_at}, on {outcome.machine}, which the load and all servers share."
    yield f"- The exchange: {outcome.daemons}; PostgreSQL, Kafka and Valkey of its own behind TCP proxies."
    yield (
        "- A stop is the longest time between two settled trades of one market around a fault, in the market"
        " that stood longest; from the fault's beginning until everything is ready again."
    )
    yield (
        f"- Stops over all faults: p50 {percentile(stops, 50):.2f} s, p99 {percentile(stops, 99):.2f} s,"
        f" max {max(stops, default=0):.2f} s."
    )
    yield from ("", f"![Throughput over time]({_PLOT})", "", "## What was checked", "")
    yield from _checks(outcome)
    yield from ("", "## Faults by kind", "")
    yield from _by_kind(outcome)
    yield from ("", "## What the clients were answered", "")
    yield from _answers(outcome)
    yield from ("", "## Every fault, in order", "")
    yield from _each(outcome)


def _checks(outcome: Outcome) -> Iterable[str]:
    yield "| check | runs | the last one looked at |"
    yield "|---|---|---|"
    if outcome.audits:
        audit = outcome.audits[-1]
        yield f"| `exchange audit` | {len(outcome.audits)} | {audit.checks} checks, {audit.rows:,} rows |"
    if outcome.replays:
        last = outcome.replays[-1]
        points = sum(one.points for one in outcome.replays)
        yield (
            f"| `exchange replay` | {len(outcome.replays)} | {last.commands:,} commands, {last.orders:,}"
            f" orders, {last.trades:,} trades, {last.digests:,} book digests;"
            f" {points} random points over all runs |"
        )
    if outcome.verdicts:
        oracle = outcome.verdicts[-1]
        yield (
            f"| oracle | {len(outcome.verdicts)} | {oracle.orders:,} orders ({oracle.asked_again:,} asked"
            f" again after an error or no answer), {oracle.fills:,} fills ({oracle.fills_heard:,} of them"
            f" heard on a WebSocket), {oracle.trades:,} trades with both sides, {oracle.accounts} accounts,"
            f" {oracle.candles} candles, {oracle.levels} levels of the books |"
        )
    wrong = sum(verdict.wrong.count for verdict in outcome.verdicts)
    yield from ("", f"Violations found: {wrong}.")


def _by_kind(outcome: Outcome) -> Iterable[str]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for ran in outcome.ran:
        kinds[ran.kind].append(ran.stop_s)
    yield "| fault | times | stop p50 s | p99 s | max s |"
    yield "|---|---:|---:|---:|---:|"
    rows = [*sorted(kinds.items()), ("**all**", [ran.stop_s for ran in outcome.ran])]
    for kind, stops in rows:
        p50, p99 = percentile(stops, 50), percentile(stops, 99)
        yield f"| {kind} | {len(stops)} | {p50:.2f} | {p99:.2f} | {max(stops, default=0):.2f} |"


def _answers(outcome: Outcome) -> Iterable[str]:
    yield "| answer | times |"
    yield "|---|---:|"
    for answer, times in sorted(outcome.answers.items()):
        yield f"| {answer} | {times:,} |"
    yield f"| none (HTTP) | {outcome.silences:,} |"
    yield from ("", f"WebSockets that had to connect again: {outcome.resyncs:,}.")


def _each(outcome: Outcome) -> Iterable[str]:
    yield "| no. | at | fault | harmed for s | stop s |"
    yield "|---:|---:|---|---:|---:|"
    for ran in outcome.ran:
        at = f"{int(ran.began_s) // 60}:{int(ran.began_s) % 60:02}"
        yield (
            f"| {ran.number} | {at} | {ran.kind}: `{ran.fault}` | {ran.healed_s - ran.began_s:.1f}"
            f" | {ran.stop_s:.2f} |"
        )
    if outcome.notes:
        yield from ("", "Notes:", "")
        for at_s, text in outcome.notes:
            yield f"- {int(at_s) // 60}:{int(at_s) % 60:02} {text}"
