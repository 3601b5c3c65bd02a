"""Batches of 100 over HTTP from ten senders: a burst, and a rate that settlement keeps up with.

A burst counts what is accepted (202: durable), whatever waits behind it. The sustained rate counts what is
settled: senders pause while the backlog is above `HIGH`, and the time runs until the last trade is settled
and the outbox is empty.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from bench.flow import TICKS_BEHIND, TOUCH, Backlog, batch_bodies, shares, tokens_by_side
from bench.http import connected, join
from bench.local import Local
from bench.table import Figure, percentile
from common import db

SENDERS, BATCH = 10, 100
BURST_S, SUSTAINED_S = 10.0, 60.0
SUSTAINED = f"the same for {SUSTAINED_S:.0f} s or so, until all of it is settled"
HIGH = 20_000  # Commands of a backlog at which the senders of the sustained load wait.
AGAIN_S = (
    0.05  # After a 503: its Retry-After is in whole seconds, and this measures the exchange, not manners.
)

_REFUSED = b'"error"'
_ARCHIVE = """
SELECT pg_total_relation_size('outbox_archive'), sum(last_sequence - first_sequence + 1)::bigint
FROM outbox_archive
"""


@dataclass(slots=True)
class Sent:
    """What the senders were answered."""

    accepted: int = 0
    seconds_each: list[float] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)


@asynccontextmanager
async def sending(
    local: Local, sent: Sent, backlog: Backlog, high: int, touch: float = TOUCH, behind: int = TICKS_BEHIND
) -> AsyncIterator[None]:
    """Ten senders, each with one batch under way, while the body runs; each answer is waited for."""
    stop = anyio.Event()

    async def send(token: str, buys: bool, seed: int) -> None:
        async with connected(local.host, local.port) as connection:
            bodies = batch_bodies(connection, token, seed, BATCH, buys=buys, touch=touch, ticks_behind=behind)
            number = 0
            while not stop.is_set():
                if backlog.lag > high:
                    await backlog.below(high)
                    continue
                begin_s = time.perf_counter()
                status, body = await connection.send(bodies[number % len(bodies)])
                if status == 202 and _REFUSED not in body:
                    sent.accepted += BATCH
                    sent.seconds_each.append(time.perf_counter() - begin_s)
                    number += 1
                else:
                    sent.refusals[status] += 1
                    await anyio.sleep(AGAIN_S)

    async with connected(local.host, local.port) as connection:
        tokens = [await join(connection) for _ in range(SENDERS)]
    async with anyio.create_task_group() as group:
        for seed, (token, buys) in enumerate(tokens_by_side(tokens)):
            group.start_soon(send, token, buys, seed)
        yield
        stop.set()


async def burst(local: Local, backlog: Backlog, seconds: float = BURST_S) -> list[Figure]:
    """Accepted a second with nothing held back, and how fast the backlog is settled afterwards."""
    await backlog.below(0)
    before, first = local.cpu_seconds(), backlog.given
    sent = Sent()
    begin_s = time.perf_counter()
    async with sending(local, sent, backlog, high=1 << 60):
        await anyio.sleep(seconds)
    took_s = time.perf_counter() - begin_s
    used = local.cpu_since(before)
    await backlog.look()
    left, given = backlog.lag, backlog.given - first
    await backlog.below(0)
    all_s = time.perf_counter() - begin_s
    _tell_refusals(sent)
    return [
        Figure(
            f"batches of {BATCH}, {SENDERS} senders, {seconds:.0f} s: accepted",
            sent.accepted / took_s,
            "/s",
            ">= 20,000/s",
            shares(used, sent.accepted),
        ),
        Figure("  its p50, a batch", percentile(sent.seconds_each, 50) * 1e3, "ms"),
        Figure("  its p99, a batch", percentile(sent.seconds_each, 99) * 1e3, "ms"),
        Figure("  not settled when it ended", left, "orders", "<= 250,000"),
        Figure("  all settled, from the first order on", given / all_s, "/s"),
    ]


async def sustained(local: Local, backlog: Backlog, seconds: float = SUSTAINED_S) -> list[Figure]:
    """Settled a second, with the backlog held below `HIGH`."""
    await backlog.below(0)
    before, first = local.cpu_seconds(), backlog.given
    sent = Sent()
    begin_s = time.perf_counter()
    async with sending(local, sent, backlog, HIGH):
        await anyio.sleep(seconds)
    await backlog.below(0)
    took_s = time.perf_counter() - begin_s
    settled = backlog.given - first
    _tell_refusals(sent)
    async with db.connect(str(local.run["postgres_url"]), "bench archive") as connection:
        row = await (await connection.execute(_ARCHIVE)).fetchone()
    assert row is not None
    archive_bytes, archived = row
    return [
        Figure(
            SUSTAINED,
            settled / took_s,
            "/s",
            ">= 8,000/s",
            shares(local.cpu_since(before), settled),
        ),
        Figure("  orders settled", settled, ""),
        Figure(
            "  the archive that a replay starts from, an order", archive_bytes / max(1, archived), "bytes"
        ),
    ]


def _tell_refusals(sent: Sent) -> None:
    if sent.refusals:
        print(f"  answers other than 202: {dict(sent.refusals)}")
