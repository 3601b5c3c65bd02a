"""More than the exchange can settle, sent on time whatever it answers: what happens to the rest.

The surplus should hear 503 with Retry-After at once, what is accepted should be accepted as fast as ever,
memory should stay flat, and afterwards the exchange should be as it was. A picture shows it over time.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from bench.batches import BATCH
from bench.flow import Backlog, batch_bodies, tokens_by_side
from bench.http import connected, join
from bench.local import Local
from bench.plot import Panel, panels
from bench.table import Figure, percentile

USERS = 40
CALM_SHARE = 0.25  # Of what is sustainable, before and after.


@dataclass(frozen=True, slots=True)
class Plan:
    """Calm, pressure of so many times what is sustainable, calm; on so many connections."""

    times: float
    connections: int
    calm_s: float
    pressure_s: float
    after_s: float


TWICE = Plan(times=2.0, connections=200, calm_s=10.0, pressure_s=45.0, after_s=15.0)


@dataclass(slots=True)
class Told:
    """What the senders heard, by the second in which they sent."""

    accepted: Counter[int] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    unsent: Counter[int] = field(default_factory=Counter)  # All connections were waiting for answers.
    other: Counter[str] = field(default_factory=Counter)
    accept_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    refuse_s: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))


def per_second(counted: Counter[int], seconds: range) -> float:
    """Of what was counted by the second."""
    return sum(counted[second] for second in seconds) / max(1, len(seconds))


def within(took_s: dict[int, list[float]], seconds: range) -> list[float]:
    """What was measured in these seconds."""
    return [one for second in seconds for one in took_s[second]]


class Pressure:
    """One run: calm, pressure, calm again."""

    def __init__(self, local: Local, backlog: Backlog, sustainable_per_s: float, plan: Plan) -> None:
        self.plan = plan
        self._local = local
        self._backlog = backlog
        self._sustainable_per_s = sustainable_per_s
        self._begin_s = time.perf_counter()
        self.told = Told()
        self.lag: list[float] = []
        self.resident: dict[str, list[float]] = defaultdict(list)
        self.eased_s = 0.0

    async def run(self) -> None:
        async with connected(self._local.host, self._local.port) as connection:
            tokens = [await join(connection) for _ in range(USERS)]
            bodies = [
                batch_bodies(connection, token, seed, BATCH, buys=buys)
                for seed, (token, buys) in enumerate(tokens_by_side(tokens))
            ]
        jobs_in, jobs = anyio.create_memory_object_stream[float](0)
        async with anyio.create_task_group() as watching:
            self._begin_s = time.perf_counter()
            watching.start_soon(self._watch)
            async with anyio.create_task_group() as senders, jobs_in:
                for number in range(self.plan.connections):
                    senders.start_soon(self._send, jobs.clone() if number else jobs, bodies[number % USERS])
                await self._emit(jobs_in, self.plan.calm_s, CALM_SHARE)
                await self._emit(jobs_in, self.plan.pressure_s, self.plan.times)
                self.eased_s = self._now_s()
                await self._emit(jobs_in, self.plan.after_s, CALM_SHARE)
            await self._backlog.below(0)
            watching.cancel_scope.cancel()

    def _now_s(self) -> float:
        return time.perf_counter() - self._begin_s

    async def _emit(self, jobs: MemoryObjectSendStream[float], seconds: float, share: float) -> None:
        """Batches at their moments; one for which no connection is free is counted and not sent."""
        pause_s = BATCH / (self._sustainable_per_s * share)
        begin_s = self._now_s()
        for number in range(int(seconds / pause_s)):
            due_s = begin_s + number * pause_s
            await anyio.sleep(max(0.0, due_s - self._now_s()))
            try:
                jobs.send_nowait(due_s)
            except anyio.WouldBlock:
                self.told.unsent[int(due_s)] += BATCH

    async def _send(self, jobs: MemoryObjectReceiveStream[float], bodies: list[bytes]) -> None:
        async with jobs, connected(self._local.host, self._local.port) as connection:
            number = 0
            async for due_s in jobs:
                status, body = await connection.send(bodies[number % len(bodies)])
                number += 1
                took_s, second = self._now_s() - due_s, int(due_s)
                busy = body.count(b'"BUSY"') if status == 202 else BATCH
                if status == 202:
                    self.told.accept_s[second].append(took_s)
                    self.told.accepted[second] += BATCH - body.count(b'"error"')
                if busy:
                    self.told.refuse_s[second].append(took_s)
                    self.told.refused[second] += busy
                if status not in (202, 429, 503):
                    self.told.other[f"{status}: {body[:80].decode()}"] += 1

    async def _watch(self) -> None:
        while True:
            self.lag.append(self._backlog.lag)
            for name, size in self._local.resident_by_part().items():
                self.resident[name].append(size / (1 << 20))
            await anyio.sleep(max(0.0, len(self.lag) - self._now_s()))

    def figures(self) -> list[Figure]:
        told = self.told
        calm = range(2, int(self.plan.calm_s))
        pressed = range(int(self.plan.calm_s) + 5, int(self.eased_s))
        accept_calm, accept = within(told.accept_s, calm), within(told.accept_s, pressed)
        refuse = within(told.refuse_s, pressed)
        grown = {name: max(sizes) - sizes[int(self.plan.calm_s)] for name, sizes in self.resident.items()}
        most = max(grown, key=lambda name: grown[name])
        if told.other:
            print(f"  other answers: {dict(told.other)}")
        return [
            Figure(
                f"{self.plan.times:g} times as much as is settled, {self.plan.pressure_s:.0f} s: accepted",
                per_second(told.accepted, pressed),
                "/s",
            ),
            Figure("  refused, 503", per_second(told.refused, pressed), "/s"),
            Figure("  not even sent: every connection waited", per_second(told.unsent, pressed), "/s"),
            Figure("  accepted, a batch: p50", percentile(accept, 50) * 1e3, "ms"),
            Figure(
                "  p99",
                percentile(accept, 99) * 1e3,
                "ms",
                "",
                f"calm {percentile(accept_calm, 99) * 1e3:.0f} ms",
            ),
            Figure("  refused, a batch: p99", percentile(refuse, 99) * 1e3, "ms"),
            Figure("  most that waited to be settled", max(self.lag), "orders"),
            Figure("  as little waits to be settled as before after", self._settled_again_s(), "s"),
            Figure("  memory grew most: " + most, grown[most], "MiB"),
            Figure("  answers other than 202 and 503", told.other.total(), "", "0"),
        ]

    def _settled_again_s(self) -> int:
        """Seconds from the end of the pressure until the backlog is what it was in the calm before it."""
        calm = max(self.lag[: int(self.plan.calm_s)])
        after = self.lag[int(self.eased_s) + 1 :]
        return next((second for second, lag in enumerate(after) if lag <= calm), len(after))

    def picture(self) -> str:
        seconds = range(len(self.lag))
        told = self.told
        rates = {
            "accepted": [told.accepted[second] for second in seconds],
            "refused": [told.refused[second] for second in seconds],
            "not sent": [told.unsent[second] for second in seconds],
        }
        times = {
            "accepted": [percentile(told.accept_s[second], 99) * 1e3 for second in seconds],
            "refused": [percentile(told.refuse_s[second], 99) * 1e3 for second in seconds],
        }
        shown = [
            Panel("orders a second", rates),
            Panel("p99 of a batch's answer, ms", times),
            Panel("orders durable and not settled", {"backlog": self.lag}),
            Panel("resident, MiB", self.resident),
        ]
        marks = {
            self.plan.calm_s: f"{self.plan.times:g} times what is sustainable",
            self.eased_s: "calm again",
        }
        title = f"Back pressure: what is settled for long is {self._sustainable_per_s:,.0f} orders/s here"
        return panels(title, shown, marks)


async def pressure(
    local: Local, backlog: Backlog, sustainable_per_s: float, picture: Path | None, plan: Plan = TWICE
) -> list[Figure]:
    """`sustainable_per_s`: orders settled, as measured in the same run."""
    await backlog.below(0)
    one = Pressure(local, backlog, sustainable_per_s, plan)
    await one.run()
    if picture is not None:
        await anyio.Path(picture).write_text(one.picture())
    return one.figures()
