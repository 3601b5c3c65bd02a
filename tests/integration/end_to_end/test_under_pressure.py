"""Ten times the load that the exchange carries, and clients who mean harm; `make bench` has the long spike.

Latencies are bounded loosely, for this machine has more to do; what is answered is not.
"""

import os
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from bench.batches import Sent, sending
from bench.flow import Backlog
from bench.http import connected
from bench.local import Local
from bench.pressure import Plan, Pressure
from bench.spike import calm_after_s
from bench.table import percentile
from tests.harness.exchange import Exchange
from tests.integration.end_to_end import hostile
from tests.integration.gateway.test_http import ORDER

pytestmark = pytest.mark.anyio

PLAN = Plan(times=10.0, connections=200, calm_s=3.0, pressure_s=4.0, after_s=6.0)
WARM_S, CALIBRATE_S = 2.0, 2.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def carried_per_s(local: Local, backlog: Backlog) -> float:
    """What ten senders who wait for their answers get accepted."""
    sent = Sent()
    async with sending(local, sent, backlog, high=1 << 60):
        await anyio.sleep(WARM_S)
        before = sent.accepted
        await anyio.sleep(CALIBRATE_S)
        accepted = sent.accepted - before
    await backlog.below(0)
    return max(1_000.0, accepted / CALIBRATE_S)


async def test_the_surplus_of_a_spike_is_turned_away_and_nothing_else_happens(exchange: Exchange) -> None:
    local = Local("127.0.0.1", exchange.ports.gateway, 0.0, os.getpid(), Path())
    backlog = Backlog(exchange.settings.postgres_url)
    async with anyio.create_task_group() as watching:
        watching.start_soon(backlog.watch)
        one = Pressure(local, backlog, await carried_per_s(local, backlog), PLAN)
        first = backlog.given
        await one.run()
        await backlog.look()
        watching.cancel_scope.cancel()
    told = one.told
    assert not told.other, "only 202, 429 and 503 may be answered"
    assert told.accepted.total() == backlog.given - first, "each accepted order is durable, and no other is"
    refused_s = [each for times in told.refuse_s.values() for each in times]
    assert told.refused.total() > told.accepted.total(), "the surplus is turned away"
    assert percentile(refused_s, 50) < 0.5, "at once"
    assert calm_after_s(one, floor_s=1.0) <= 5.0, "it is calm again"
    assert exchange.is_ready()


ATTACKS: dict[hostile.Attack, set[str]] = {
    hostile.slow_loris: {"408"},
    hostile.large_heads: {"431"},
    hostile.endless_bodies: {"413"},
    hostile.websocket_flood: {"101", "1008"},
    hostile.subscription_bomb: {"101", "1008"},
}
CALM_S, ATTACK_S = 3.0, 2.0
SLOW_S = 5.0  # An attack by slowness is noticed after `gateway.pace.GRACE_S`.
FLOOR_S = 0.5  # A busy machine alone makes somebody wait so long.


async def trade(exchange: Exchange, token: str, seconds: float) -> list[float]:
    """An order, then the book, again and again: how long each answer took. All of them must be good."""
    took_s: list[float] = []
    async with connected("127.0.0.1", exchange.ports.gateway) as connection:
        requests = [
            connection.prepare("POST", "/api/v1/orders", token, ORDER),
            connection.prepare("GET", "/api/v1/orderbook?symbol=BTC-USD"),
        ]
        stop_s = time.perf_counter() + seconds
        while (begun_s := time.perf_counter()) < stop_s:
            status, body = await connection.send(requests[len(took_s) % 2])
            assert status in (200, 202), body
            took_s.append(time.perf_counter() - begun_s)
            await anyio.sleep(0.02)
    return took_s


async def test_others_do_not_notice_clients_who_mean_harm(exchange: Exchange) -> None:
    token, mallory = exchange.join().token, exchange.join().token
    await trade(exchange, token, 1.0)
    calm_s = percentile(await trade(exchange, token, CALM_S), 99)
    for attack, answers in ATTACKS.items():
        heard: hostile.Heard = Counter()
        async with anyio.create_task_group() as attacking:
            attacking.start_soon(attack, exchange.ports.gateway, mallory, heard)
            took_s = await trade(exchange, token, SLOW_S if answers == {"408"} else ATTACK_S)
            attacking.cancel_scope.cancel()
        attacked_s = percentile(took_s, 99)
        name = attack.__name__
        assert answers <= heard.keys(), f"{name}: {heard}"
        assert attacked_s <= max(2 * calm_s, FLOOR_S), f"{name}: {attacked_s:.3f} s, calm {calm_s:.3f} s"
    assert exchange.is_ready()
