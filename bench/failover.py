"""`make failover KILLS=50`: how long trading, settling and candles stop when their leader is killed.

kill -9 of who leads, one kind after the other, while eight users trade; everything that was killed starts
again before the next round, and the second of each kind stands by. Ends with an audit and a replay.
"""

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import anyio

from bench.table import Figure, as_data, as_markdown, percentile
from common import db
from common.audit import audit
from common.replay import replay
from tests.harness.exchange import Exchange, running_exchange
from tests.harness.servers import servers_in_a_thread
from tests.integration.failover.takeover import KINDS, Pulse, Takeover, kill_leader
from tests.integration.failover.traders import PRICES, Told, trading
from tests.integration.failover.verdict import settled

GOAL = "<= 500 ms"
WARM_S = 1.5  # From ready to a standby with all that makes a takeover short.
WORDS = {
    "matching": "without a settled trade, matching killed",
    "settling": "without a settled trade, order-service killed",
    "candles": "until candles move, market-data killed",
}


async def measure(exchange: Exchange, kills: int, seed: int) -> list[Figure]:
    pulse = Pulse(exchange.settings.postgres_url)
    found: dict[str, list[Takeover]] = defaultdict(list)
    async with db.connect(exchange.settings.postgres_url, "failover bench") as connection:
        async with trading(exchange, seed) as (told, _), anyio.create_task_group() as group:
            group.start_soon(pulse.run)
            begun_s = anyio.current_time()
            for number in range(kills):
                await anyio.sleep(WARM_S)
                for kind in KINDS:
                    takeover = await kill_leader(exchange, connection, pulse, kind, list(PRICES))
                    found[kind.name].append(takeover)
                    print(f"{number + 1}: {takeover}", flush=True)
                    exchange.start(takeover.victim)
                await anyio.to_thread.run_sync(exchange.wait_ready)
            seconds = anyio.current_time() - begun_s
            group.cancel_scope.cancel()
        figures = [figure for each in found.values() for figure in _figures(each)]
        return [*figures, *_answers(told, seconds), *await _verdict(connection, seed)]


def _figures(takeovers: list[Takeover]) -> list[Figure]:
    name = takeovers[0].kind.name
    stopped_ms = [each.stopped_s * 1e3 for each in takeovers]
    led_ms = [each.led_s * 1e3 for each in takeovers]
    return [
        Figure(f"{WORDS[name]}, {len(takeovers)} times: p50", percentile(stopped_ms, 50), "ms"),
        Figure("  p99", percentile(stopped_ms, 99), "ms", GOAL),
        Figure("  max", max(stopped_ms), "ms"),
        Figure("  of that, until another holds the lease: p50", percentile(led_ms, 50), "ms"),
        Figure("  p99", percentile(led_ms, 99), "ms"),
    ]


def _answers(told: Told, seconds: float) -> list[Figure]:
    for wrong in told.wrong[:10]:
        print(f"  wrong: {wrong}")
    return [
        Figure("orders accepted meanwhile", told.statuses[202] / seconds, "/s"),
        Figure("  answers that were neither good nor 503 with Retry-After", len(told.wrong), "", "0"),
    ]


async def _verdict(connection: db.Connection, seed: int) -> list[Figure]:
    await settled(connection)
    findings = [finding for finding in await audit(connection) if not finding.ok]
    report = await replay(connection, points=3, seed=seed, progress=print)
    for finding in findings:
        print(f"  audit: {finding}")
    return [
        Figure("checks of the audit that failed", len(findings), "", "0"),
        Figure("replay: the same, byte for byte", int(report.ok), "", "1"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each kind (default 50)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of what the users do")
    parser.add_argument("--logs", type=Path, help="keep the daemons' logs in this folder")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="exchange-failover-") as folder:
        logs: Path = given.logs or Path(folder) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (
            servers_in_a_thread(Path(folder)) as servers,
            running_exchange(servers, logs, order_services=2, market_datas=2) as exchange,
        ):
            figures = anyio.run(
                measure, exchange, given.kills, given.seed, backend_options={"use_uvloop": True}
            )
    print()
    print(as_markdown(figures))
    if given.json is not None:
        given.json.write_text(json.dumps({"time": time.time(), "figures": as_data(figures)}, indent=1))


if __name__ == "__main__":
    main()
