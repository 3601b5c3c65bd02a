"""The engine alone: `python -m bench.engine`. The flow stands in `bench.engine_flow`.

Each measurement is a process of its own, so that the compiled core and its sources are measured in one run,
and none finds the memory that another has left.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from bench.engine_run import Run
from bench.table import Figure, as_markdown

COMMANDS = 100_000
LIVE, MOST_LIVE = 10_000, 1_000_000
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Size:
    """`passes`: the best of so many counts."""

    live: int
    markets: int = 1
    passes: int = 5

    @property
    def name(self) -> str:
        return f"{self.live:,} live orders, {self.markets} market" + ("s" if self.markets > 1 else "")


LEAST_LIVE = 1_000
RATE = Size(LIVE)
GROWTH = (Size(LEAST_LIVE), Size(100_000), Size(MOST_LIVE, passes=2), Size(LIVE, 4), Size(LIVE, 16))


def engine() -> list[Figure]:
    """Commands a second, compiled and pure; what a command costs as the books grow; a restore."""
    pure, best = _run(RATE, pure=True), _run(RATE)
    runs = {RATE: best} | {size: _run(size) for size in GROWTH}
    form = "compiled" if best.compiled else "pure: it is not compiled here"
    costs = [run.command_us for run in runs.values()]
    least, most = (
        next(run for size, run in runs.items() if size.live == live) for live in (LEAST_LIVE, MOST_LIVE)
    )
    added_us = most.command_us - least.command_us
    bare_us = _bare_us(MOST_LIVE) - _bare_us(LEAST_LIVE)
    return [
        Figure(f"engine alone, {form}", 1e6 / best.command_us, "commands/s", ">= 1,000,000/s"),
        Figure("  pure Python", 1e6 / pure.command_us, "commands/s", ">= 250,000/s"),
        *(Figure(f"  a command with {size.name}", run.command_us, "us") for size, run in runs.items()),
        Figure(
            "  the dearest of these over the cheapest",
            max(costs) / min(costs),
            "x",
            "",
            "of an order's whole cost: see growth",
        ),
        Figure(
            f"  what {MOST_LIVE:,} live orders add to a command",
            added_us,
            "us",
            "",
            f"a bare loop over as many objects: {bare_us:.2f} us",
        ),
        Figure(f"  slowest batch with {MOST_LIVE:,} live orders", most.slowest_batch_ms, "ms"),
        Figure(f"engine restored with {MOST_LIVE:,} live orders", most.restore_s, "s"),
        Figure("  resident for it", most.restored_bytes / MIB, "MiB"),
    ]


def _run(size: Size, *, pure: bool = False) -> Run:
    numbers = (size.live, size.markets, COMMANDS, size.passes)
    options = ["-X", "pure_core"] if pure else []
    command = [sys.executable, *options, "-m", "bench.engine_run", *map(str, numbers)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Run(**json.loads(made.stdout))


def _bare_us(live: int) -> float:
    command = [sys.executable, "-m", "bench.engine_bare", str(live)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    print(as_markdown(engine()))
