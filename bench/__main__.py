"""Runs the benchmarks on an exchange of their own and prints the table."""

import argparse
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio

from bench import accept, end_to_end, limits
from bench.local import Local, exchange_up
from bench.table import Figure, as_data, as_markdown
from common.config import Settings

MIB = 1 << 20


async def bench(seconds: float) -> list[Figure]:
    """Measure everything once; `seconds` is the length of each load."""
    async with exchange_up() as local:
        figures = [Figure("`exchange up` until it is open", local.ready_s, "s", "<= 25 s")]
        print(f"open after {local.ready_s:.1f} s; measuring the machine ...", flush=True)
        figures += await _limits(local, seconds)
        print("end to end at 50 orders/s ...", flush=True)
        goals = ("<= 20 ms", "<= 60 ms")
        figures += await end_to_end.end_to_end(local.host, local.port, 50, seconds, goals)
        print("orders accepted over HTTP ...", flush=True)
        figures += await _with_cpu(local, partial(accept.accepted, local.host, local.port, seconds))
        figures.append(Figure("resident in all (PSS)", local.resident_bytes() / MIB, "MiB", "<= 1,434 MiB"))
    return figures


async def _limits(local: Local, seconds: float) -> list[Figure]:
    run = local.run
    settings = Settings(kafka_bootstrap=str(run["kafka_bootstrap"]), topic_prefix=str(run["topic_prefix"]))
    return [
        await limits.commit_limit(str(run["postgres_url"])),
        await limits.kafka_limit(settings),
        await limits.route_limit(min(seconds, 5.0)),
    ]


async def _with_cpu(local: Local, measure: Callable[[], Awaitable[list[Figure]]]) -> list[Figure]:
    """The figures of `measure`, and how the exchange's processes shared the CPU meanwhile."""
    before = local.cpu_seconds()
    figures = await measure()
    used = {name: after_s - before.get(name, 0.0) for name, after_s in local.cpu_seconds().items()}
    total = sum(used.values())
    shares = ", ".join(f"{name} {100 * each / total:.0f} %" for name, each in sorted(used.items()) if each)
    return [*figures, Figure("  CPU of the exchange meanwhile", total, "s", "", shares)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the exchange does here.")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each load (default 15)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    figures = anyio.run(bench, given.seconds, backend_options={"use_uvloop": True})
    print()
    print(as_markdown(figures))
    if given.json is not None:
        given.json.write_text(json.dumps({"time": time.time(), "figures": as_data(figures)}, indent=1))


if __name__ == "__main__":
    main()
