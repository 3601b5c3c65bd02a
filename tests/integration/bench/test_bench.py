"""Every part of `make bench` runs against the exchange as it is, for a moment; its figures are not judged."""

import math
import subprocess
import sys
from pathlib import Path

import anyio

from bench import accept, batches, end_to_end, limits, pressure, spike, streams
from bench.flow import Backlog
from bench.local import exchange_up
from bench.pressure import Plan
from bench.table import Figure, as_markdown
from common.config import Settings
from common.topics import ensure_topics

ROOT = Path(__file__).parents[3]
# The figures of pressure are of what comes after five seconds of it.
PRESSURE = Plan(times=3.0, connections=20, calm_s=3.0, pressure_s=7.0, after_s=2.0)
SPIKE = Plan(times=3.0, connections=20, calm_s=3.0, pressure_s=2.0, after_s=2.0)
SUSTAINABLE_PER_S = 1_000.0


def test_every_load_gives_its_figures(tmp_path: Path) -> None:
    picture = tmp_path / "pressure.svg"
    figures = anyio.run(_all_loads, picture, backend_options={"use_uvloop": True})
    rates = [figure for figure in figures if figure.unit == "/s" and "accepted" in figure.what]
    assert len(rates) == 5
    assert all(figure.value > 0 for figure in rates)
    assert all(math.isfinite(figure.value) for figure in figures)
    failed = [figure for figure in figures if figure.goal == "0" and figure.value]
    assert not failed, as_markdown(failed)
    assert picture.read_text().startswith("<svg")


async def _all_loads(picture: Path) -> list[Figure]:
    async with exchange_up() as local, anyio.create_task_group() as group:
        postgres_url = str(local.run["postgres_url"])
        settings = Settings(kafka_bootstrap=str(local.run["kafka_bootstrap"]), topic_prefix=limits.PREFIX)
        await ensure_topics(settings)
        backlog = Backlog(postgres_url)
        group.start_soon(backlog.watch)
        figures = [
            await limits.commit_limit(postgres_url),
            await limits.kafka_limit(settings),
            await limits.kafka_bulk_limit(settings, 1.0),
            await limits.route_limit(1.0),
            await streams.echo_limit(1.0),
            *await end_to_end.end_to_end(local.host, local.port, 20, 1.0, ("", "")),
            *await accept.accepted(local.host, local.port, 1.0),
            *await streams.streams(local, backlog, 1.0, 10),
            *await batches.burst(local, backlog, 1.0),
            *await batches.sustained(local, backlog, 1.0),
            *await pressure.pressure(local, backlog, SUSTAINABLE_PER_S, picture, PRESSURE),
            *await spike.spike(local, backlog, SUSTAINABLE_PER_S, SPIKE),
        ]
        group.cancel_scope.cancel()
    return figures


def test_the_fan_out_gives_its_figures() -> None:
    command = [sys.executable, "-m", "bench.fanout", "--seconds", "1", "--clients", "30"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "through the gateway's splice" in ran.stdout
