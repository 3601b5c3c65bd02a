"""Servers, exchange, load, faults, checks: one run from the first order to the verdict.

After each fault: trading must go on by itself, then `exchange audit` and `exchange replay` must agree. Every
few faults and at the end the load rests, everything accepted is carried out, and the oracle compares.
"""

import os
import platform
import random
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from common.supervise import leaves
from tests.chaos.checks import audited, replayed
from tests.chaos.faults import FaultKind
from tests.chaos.load import Load, Rate, running_load
from tests.chaos.observer import Observer
from tests.chaos.oracle import compare
from tests.chaos.outcome import Outcome, Ran
from tests.chaos.public import until_settled
from tests.chaos.schedule import Step
from tests.chaos.servers import Stand, own_servers
from tests.chaos.world import ChaosFailure, World
from tests.harness.exchange import Exchange, NotReady, running_exchange

RECOVER_S = 60.0  # From the end of a fault until trading goes on by itself.
SETTLE_S = 60.0
WARM_UP_S = 3.0
POINTS_LIVE, POINTS_AT_REST = 1, 4  # Where a replay begins again, from a restored engine.
INSTANCES = {"gateways": 2, "order_services": 2, "matchings": 2, "market_datas": 2}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds`: no new fault begins after so long. `rest_every`: faults between two visits of the oracle."""

    seed: int
    seconds: float
    rest_every: int = 8
    rate: Rate = field(default_factory=Rate)


async def run(options: Options, steps: Iterable[Step], folder: Path, say: Say) -> Outcome:
    """One run; whatever does not hold stands in the outcome's `failure`."""
    instances = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in INSTANCES.items())
    outcome = Outcome(options.seed, machine(), instances, options.seconds)
    try:
        async with (
            own_servers(folder, say) as stand,
            _exchange(stand, folder) as exchange,
            running_load(exchange, options.rate, options.seed) as load,
            anyio.create_task_group() as watching,
        ):
            observer = Observer(_past(stand, exchange), load.began_s)
            watching.start_soon(observer.run)
            one_run = _Run(options, outcome, stand, exchange, load, observer, say)
            try:
                await one_run.run(steps)
            finally:
                one_run.write_down()
            watching.cancel_scope.cancel()
    except (ChaosFailure, NotReady) as failure:
        outcome.failure = str(failure)
    except BaseExceptionGroup as group:
        outcome.failure = "\n".join(map(_told, leaves(group)))
    if outcome.failure:
        say(f"FAILED (seed {options.seed}): {outcome.failure}")
    return outcome


class _Run:
    def __init__(
        self,
        options: Options,
        outcome: Outcome,
        stand: Stand,
        exchange: Exchange,
        load: Load,
        observer: Observer,
        say: Say,
    ) -> None:
        self._options = options
        self._outcome = outcome
        self._exchange = exchange
        self._load = load
        self._observer = observer
        self._postgres_url = _past(stand, exchange)
        self._say = say
        self._rng = random.Random(f"{options.seed}/run")
        self._world = World(
            exchange, stand.servers, stand.proxies, self._rng, self._note, frozenset(WORLD_HAS)
        )

    async def run(self, steps: Iterable[Step]) -> None:
        self._outcome.began_at = datetime.now(UTC).isoformat(timespec="seconds")
        await self._trading({1: 0, 2: 0}, "trading does not begin")
        await anyio.sleep(WARM_UP_S)
        for step in steps:
            if self._load.now_s() > self._options.seconds:
                break
            await anyio.sleep(step.calm_s)
            await self._one(step)
            if step.number % self._options.rest_every == 0:
                await self._rest()
        await self._rest()

    def write_down(self) -> None:
        told, outcome = self._load.told, self._outcome
        outcome.seconds = self._load.now_s()
        outcome.accepted_by_s, outcome.trades_by_s = told.accepted_by_s, self._observer.trades_by_s
        outcome.answers, outcome.silences, outcome.resyncs = told.answers, told.silences, told.resyncs

    async def _one(self, step: Step) -> None:
        """Raises ChaosFailure when the exchange does not come back by itself, or when its books are wrong."""
        began_s = self._load.now_s()
        try:
            await step.fault.inject(self._world)
            healed_s = self._load.now_s()
            await self._trading(self._observer.trades, f"trading did not go on after {step}")
            await to_thread.run_sync(partial(self._exchange.wait_ready, RECOVER_S))
        except (ChaosFailure, NotReady) as failure:
            raise ChaosFailure(f"{step}\n{failure}") from failure
        recovered_s = self._load.now_s()
        await anyio.sleep(0.5)  # So that the trades around the end are in.
        stops = self._observer.longest_stops(began_s, recovered_s)
        ran = Ran(step.number, step.kind, str(step.fault), began_s, healed_s, recovered_s, stops)
        self._outcome.ran.append(ran)
        await self._check(str(step), POINTS_LIVE)
        self._say(
            f"{step}: ready after {recovered_s - began_s:.1f} s, without a trade {ran.stop_s:.2f} s;"
            f" checked in {self._load.now_s() - recovered_s:.1f} s"
        )

    async def _trading(self, seen: dict[int, int], otherwise: str) -> None:
        """Until every market has a trade that was not `seen`, and orders are taken."""
        before = dict(seen)
        with anyio.move_on_after(RECOVER_S):
            while not all(self._observer.trades.get(market, 0) > last for market, last in before.items()):
                self._world.check_alive()
                with anyio.move_on_after(1.0):
                    await self._observer.grows()
            await self._world.until_ready(RECOVER_S)
            return
        raise ChaosFailure(f"{otherwise} within {RECOVER_S:g} s: {before}\n{self._exchange.tails()}")

    async def _check(self, when: str, points: int) -> None:
        """The tables agree with each other, and the engine with the tables."""
        now_s = self._load.now_s()
        try:
            self._outcome.audits.append(await audited(self._postgres_url, now_s))
            seed = self._rng.randrange(1 << 32)
            self._outcome.replays.append(await replayed(self._postgres_url, now_s, points, seed))
        except ChaosFailure as failure:
            raise ChaosFailure(f"after {when}: {failure}") from failure

    async def _rest(self) -> None:
        """Everything comes to rest, and the oracle compares."""
        began_s = self._load.now_s()
        await self._load.rest()
        port, told = self._exchange.ports.gateway, self._load.told
        await until_settled(port, told.accounts, SETTLE_S)
        await self._check("the rest", POINTS_AT_REST)
        verdict = await compare(told, port, self._rng)
        self._outcome.verdicts.append(verdict)
        self._outcome.rests.append((began_s, self._load.now_s()))
        if verdict.wrong.count:
            first = "\n".join(verdict.wrong.first)
            raise ChaosFailure(f"the oracle finds {verdict.wrong.count} violations:\n{first}")
        self._say(
            f"      at rest: {verdict.orders:,} orders ({verdict.asked_again:,} asked again),"
            f" {verdict.fills:,} fills ({verdict.fills_heard:,} heard), {verdict.trades:,} trades agree"
        )
        self._load.go_on()
        # Else the rest would count as a stop of the fault after it.
        await self._trading(self._observer.trades, "trading did not go on after the rest")

    def _note(self, text: str) -> None:
        self._outcome.notes.append((self._load.now_s(), text))
        self._say(f"      {text}")


WORLD_HAS = ("postgres", "kafka", "valkey", "proxies")


def possible(kinds: Iterable[FaultKind]) -> list[FaultKind]:
    """Those that this runner's world can do."""
    return [kind for kind in kinds if set(kind.needs) <= set(WORLD_HAS)]


@asynccontextmanager
async def _exchange(stand: Stand, folder: Path) -> AsyncIterator[Exchange]:
    """Prepared and ended in a thread: both block. Started here: see `world`."""
    running = running_exchange(stand.proxied, folder / "logs", ready=False, **INSTANCES)
    exchange = await to_thread.run_sync(running.__enter__)
    try:
        exchange.start()
        await to_thread.run_sync(exchange.wait_ready)
        yield exchange
    finally:
        with anyio.CancelScope(shield=True):
            for proxy in stand.proxies.values():  # A fault that failed may have left it so.
                proxy.heal()
            for server in stand.servers.values():
                server.thaw()
                await server.start()
            await to_thread.run_sync(running.__exit__, None, None, None)


def _told(error: BaseException) -> str:
    """What did not hold says so itself; anything else is a mistake of ours, and needs its traceback."""
    if isinstance(error, ChaosFailure | NotReady):
        return str(error)
    return "".join(traceback.format_exception(error))


def _past(stand: Stand, exchange: Exchange) -> str:
    """The URL of the exchange's database, past the proxy."""
    name = exchange.settings.postgres_url.rpartition("/")[2]
    return f"{stand.direct.postgres_url.rpartition('/')[0]}/{name}"


def machine() -> str:
    system = f"{platform.machine()}, {platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
