"""Runs the benchmarks on an exchange of their own and prints the table."""

import argparse
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio

from bench import (
    accept,
    batches,
    end_to_end,
    engine,
    fanout,
    gateway,
    growth,
    limits,
    pressure,
    spike,
    streams,
    tx1,
)
from bench import tx2 as tx2_stages
from bench.flow import Backlog, shares
from bench.local import Local, Spent, exchange_up
from bench.profiles import profiled
from bench.table import Figure, as_data, as_markdown
from common.config import Settings
from common.topics import ensure_topics

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bench:
    """What the loads work with: an open exchange, its backlog, and the seconds that each load takes."""

    local: Local
    backlog: Backlog
    seconds: float
    picture: Path | None
    figures: list[Figure]  # Those measured before.


Load = Callable[[Bench], Awaitable[list[Figure]]]


async def _limits(bench: Bench) -> list[Figure]:
    run = bench.local.run
    settings = Settings(kafka_bootstrap=str(run["kafka_bootstrap"]), topic_prefix=limits.PREFIX)
    await ensure_topics(settings)
    return [
        await limits.commit_limit(str(run["postgres_url"])),
        await limits.kafka_limit(settings),
        await limits.kafka_bulk_limit(settings, min(bench.seconds, 5.0)),
        await limits.route_limit(min(bench.seconds, 5.0)),
        await streams.echo_limit(min(bench.seconds, 5.0)),
    ]


async def _end_to_end(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    for orders_per_s, goals in end_to_end.GOALS.items():
        before, first = bench.local.cpu_seconds(), bench.backlog.given
        figures += await end_to_end.end_to_end(
            bench.local.host, bench.local.port, orders_per_s, bench.seconds, goals
        )
        figures.append(_cpu_an_order(bench, before, bench.backlog.given - first))
    return figures


async def _singles(bench: Bench) -> list[Figure]:
    before, first = bench.local.cpu_seconds(), bench.backlog.given
    figures = await accept.accepted(bench.local.host, bench.local.port, bench.seconds)
    await bench.backlog.below(0)
    return [*figures, _cpu_an_order(bench, before, bench.backlog.given - first)]


def _cpu_an_order(bench: Bench, before: Spent, count: int) -> Figure:
    used = bench.local.cpu_since(before)
    return Figure("  CPU an order", used.each_us(count), "us", "", shares(used, count))


async def _streams(bench: Bench) -> list[Figure]:
    one = await streams.streams(bench.local, bench.backlog, bench.seconds, 1)
    return [*one, *await streams.streams(bench.local, bench.backlog, bench.seconds, 10)]


async def _burst(bench: Bench) -> list[Figure]:
    return await batches.burst(bench.local, bench.backlog)


async def _sustained(bench: Bench) -> list[Figure]:
    return await batches.sustained(bench.local, bench.backlog, max(bench.seconds, batches.SUSTAINED_S))


async def _pressure(bench: Bench) -> list[Figure]:
    return await pressure.pressure(bench.local, bench.backlog, await _sustainable(bench), bench.picture)


async def _spike(bench: Bench) -> list[Figure]:
    return await spike.spike(bench.local, bench.backlog, await _sustainable(bench))


async def _sustainable(bench: Bench) -> float:
    """The sustained rate, which is measured first when it has not been."""
    if not any(figure.what == batches.SUSTAINED for figure in bench.figures):
        bench.figures.extend(await batches.sustained(bench.local, bench.backlog, 20.0))
    return next(figure.value for figure in bench.figures if figure.what == batches.SUSTAINED)


async def _weight(bench: Bench) -> list[Figure]:
    return [Figure("resident in all (PSS)", bench.local.resident_bytes() / MIB, "MiB", "<= 1,434 MiB")]


async def _engine_alone(_: float) -> list[Figure]:
    return await anyio.to_thread.run_sync(engine.engine)


async def _tx1_alone(_: float) -> list[Figure]:
    async with tx1.own_exchange() as postgres_url:
        return await tx1.tx1(postgres_url)


async def _growth_alone(_: float) -> list[Figure]:
    async with exchange_up() as local, anyio.create_task_group() as group:
        backlog = Backlog(str(local.run["postgres_url"]))
        group.start_soon(backlog.watch)
        figures = await growth.growth(local, backlog)
        group.cancel_scope.cancel()
    return figures


async def _tx2_alone(_: float) -> list[Figure]:
    return await tx2_stages.stages(20_000, 1_000)


# Parts by themselves, or on an exchange of their own.
ALONE: dict[str, Callable[[float], Awaitable[list[Figure]]]] = {
    "engine": _engine_alone,
    "tx1": _tx1_alone,
    "fanout": fanout.fanout_figures,
    "growth": _growth_alone,
}
LOADS: dict[str, Load] = {
    "limits": _limits,
    "end-to-end": _end_to_end,
    "singles": _singles,
    "weight": _weight,
    "streams": _streams,
    "burst": _burst,
    "sustained": _sustained,
    "pressure": _pressure,
    "spike": _spike,
}
# Longer, or of interest to who works on that part: by name alone.
ALONE_ON_DEMAND: dict[str, Callable[[float], Awaitable[list[Figure]]]] = {
    "tx2": _tx2_alone,
    "gateway": gateway.gateway_alone,
}


async def run(
    seconds: float, wanted: Iterable[str], profiles: Path | None, picture: Path | None
) -> list[Figure]:
    """Measure each once; `seconds` is the length of those that have none of their own."""
    figures: list[Figure] = []
    alone = ALONE | ALONE_ON_DEMAND
    for name in (one for one in wanted if one in alone):
        print(f"{name} ...", flush=True)
        _take(figures, await alone[name](seconds))
    asked = [one for one in wanted if one in LOADS]
    if not asked:
        return figures
    async with exchange_up() as local, anyio.create_task_group() as group:
        _take(figures, [Figure("`exchange up` until it is open", local.ready_s, "s", "<= 25 s")])
        backlog = Backlog(str(local.run["postgres_url"]))
        group.start_soon(backlog.watch)
        for name in asked:
            print(f"{name} ...", flush=True)
            async with profiled(local, None if name == "limits" else profiles, name):
                made = await LOADS[name](Bench(local, backlog, seconds, picture, figures))
            _take(figures, made)
        group.cancel_scope.cancel()
    return figures


def _take(figures: list[Figure], made: list[Figure]) -> None:
    """Told as they come: all of it takes minutes."""
    print("\n".join(f"  {figure}" for figure in made), flush=True)
    figures += made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the exchange does here.")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each load (default 15)")
    usual, rare = ALONE | LOADS, ALONE_ON_DEMAND
    parser.add_argument(
        "--only",
        default=",".join(usual),
        help=f"by comma, of {', '.join([*usual, *rare])} (default: the first {len(usual)})",
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--profile", type=Path, metavar="DIR", help="where each daemon spends its time")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where the picture of back pressure goes")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - usual.keys() - rare.keys():
        parser.error(
            f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join([*usual, *rare])}"
        )
    if given.profile is not None:
        given.profile.mkdir(parents=True, exist_ok=True)
    go = partial(run, given.seconds, wanted, given.profile, given.plot)
    figures = anyio.run(go, backend_options={"use_uvloop": True})
    print()
    print(as_markdown(figures))
    if given.json is not None:
        given.json.write_text(json.dumps({"time": time.time(), "figures": as_data(figures)}, indent=1))


if __name__ == "__main__":
    main()
