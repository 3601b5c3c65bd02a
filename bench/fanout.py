"""`python -m bench.fanout`: 1,000 WebSocket clients on one busy market, and how far behind each of them is.

market-data runs alone in a process of its own (bench.fanout_feed); all clients live in this one, so the two
have a core each. A client notes when each frame came and which sequences it covers, and nothing is parsed
beyond that while the clock runs. An update is late by the time from its entering market-data to the
arrival of the frame that covers it.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from bench.fanout_feed import MARKET
from bench.table import Figure, as_data, as_markdown, percentile
from daemons.local.ports import free_port
from tests.harness.exchange import HIGH_LIMITS

CLIENTS = 1_000
GOAL = "<= 100 ms"  # For clients that are connected to market-data itself.
SPLICED = "through the gateway's splice"
UPDATES_PER_S = 200
SLOW = 20
CHANNELS = [f"{kind}:{MARKET.symbol}" for kind in ("depth", "trades", "ticker")]
MEASURED = ("depth", "trades")  # A ticker sums up, ten times a second, and covers no sequences.
WARM_UP_S = 1.0
OPEN_S = 60.0
SETTLE_S = 1.0
AT_ONCE = 50  # Connections that are opened at the same time.
TOGGLE_S = 0.06  # As often as a client may say something, for long.
LINE_BYTES = 64 << 20

_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_KINDS = {b'{"channel":"d': "depth", b'{"channel":"tr': "trades"}


class Watcher(asyncio.Protocol):
    """One client: for each channel it notes (sequence, previous, when it came, a snapshot or not)."""

    def __init__(self) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self.came: dict[str, list[tuple[int, int, float, bool]]] = {kind: [] for kind in MEASURED}
        self.frames = 0
        self.lost = False
        self.over = False  # What is lost from here on is of our own doing.
        self.transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance.
        self.transport.write(_HANDSHAKE)
        self.say("subscribe", CHANNELS)

    def say(self, op: str, channels: Sequence[str]) -> None:
        assert self.transport is not None
        payload = json.dumps({"op": op, "channels": channels}).encode()
        assert len(payload) < 126
        self.transport.write(bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload)

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        buffer = self._buffer + data if self._buffer else data
        at = 0
        if not self.ready.done():
            at = buffer.find(b"\r\n\r\n") + 4
            if at < 4:
                self._buffer = buffer
                return
            assert buffer.startswith(b"HTTP/1.1 101 ")
            self.ready.set_result(None)
        while (found := _frame(buffer, at)) is not None:
            begin, at = found
            self._note(buffer[begin : begin + 160], now_s)
        self._buffer = buffer[at:]

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = not self.over

    def _note(self, start: bytes, now_s: float) -> None:
        self.frames += 1
        kind = _KINDS.get(start[:13]) or _KINDS.get(start[:14])
        if kind is not None:
            place = start.index(b'"sequence":') + 11
            previous = start.index(b'"previous":', place) + 11
            self.came[kind].append(
                (
                    int(start[place : previous - 12]),
                    int(start[previous : start.index(b",", previous)]),
                    now_s,
                    b'"type":"snapshot"' in start,
                )
            )


def _frame(buffer: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None when it is not there yet."""
    if len(buffer) < at + 2:
        return None
    size, begin = buffer[at + 1], at + 2
    if size >= 126:
        begin += 2 if size == 126 else 8
        if len(buffer) < begin:
            return None
        size = int.from_bytes(buffer[at + 2 : begin], "big")
    return (begin, begin + size) if len(buffer) >= begin + size else None


def late_s(
    came: Sequence[tuple[int, int, float, bool]], entered_s: Sequence[float], first: int, warm_s: float
) -> list[float]:
    """How late each update was that entered after `warm_s`; entered_s[0] is that of the sequence `first`.

    Asserts that the frames follow each other and that the last one covers the last update.
    """
    found: list[float] = []
    last = 0
    for sequence, previous, at_s, snapshot in came:
        assert snapshot or previous == last, (previous, last)
        for number in range(max(last + 1, first), sequence + 1):
            begin_s = entered_s[number - first]
            if last and begin_s >= warm_s:
                found.append(at_s - begin_s)
        last = sequence
    assert last == first + len(entered_s) - 1, "updates have not come"
    return found


async def fan_out(clients: int, seconds: float, *, slow: int = 0, spliced: bool = False) -> list[Figure]:
    """The figures of one run; `slow` more clients read nothing, and one more comes and goes all the time."""
    async with _feeding(WARM_UP_S + seconds) as (say, feed_port):
        if spliced:
            async with _gateway(feed_port) as port:
                return await _measure(say, port, clients, slow, SPLICED)
        return await _measure(say, feed_port, clients, slow, f"beside {slow} slow ones" if slow else "")


async def _measure(say: Any, port: int, clients: int, slow: int, how: str) -> list[Figure]:
    watchers: list[Watcher] = []
    async with anyio.create_task_group() as group:
        try:
            with anyio.fail_after(OPEN_S):
                while len(watchers) < clients + slow + bool(slow):
                    count = min(AT_ONCE, clients + slow + bool(slow) - len(watchers))
                    watchers += await _open(port, count)
            for watcher in watchers[clients : clients + slow]:
                assert watcher.transport is not None
                watcher.transport.pause_reading()
            if slow:
                group.start_soon(_toggle, watchers[-1])
            await anyio.sleep(SETTLE_S)
            came = json.loads(await say(b"go\n"))
            await anyio.sleep(SETTLE_S)
        finally:
            group.cancel_scope.cancel()
            for watcher in watchers:
                watcher.over = True
                if watcher.transport is not None:
                    watcher.transport.abort()
    return _figures(watchers[:clients], came, how, "" if how == SPLICED else GOAL)


async def _open(port: int, count: int) -> list[Watcher]:
    loop = asyncio.get_running_loop()
    made = await asyncio.gather(*(loop.create_connection(Watcher, "127.0.0.1", port) for _ in range(count)))
    watchers = [watcher for _, watcher in made]
    await asyncio.gather(*(watcher.ready for watcher in watchers))
    return watchers


async def _toggle(watcher: Watcher) -> None:
    """It stays within what a client may say; if not, it is closed, and this fails."""
    while True:
        for op in ("unsubscribe", "subscribe"):
            assert not watcher.lost, "the client that comes and goes was closed"
            watcher.say(op, CHANNELS)
            await anyio.sleep(TOGGLE_S)


def _figures(everybody: Sequence[Watcher], feed: dict[str, Any], how: str, goal: str) -> list[Figure]:
    watchers = [watcher for watcher in everybody if not watcher.lost]
    assert watchers, "every client was closed"
    warm_s = feed["depth"][0] + WARM_UP_S
    each = [
        late_s(watcher.came["depth"], feed["depth"], 2, warm_s)
        + late_s(watcher.came["trades"], feed["trades"], 1, warm_s)
        for watcher in watchers
    ]
    everything = [value for values in each for value in values]
    p99s = [percentile(values, 99) for values in each]
    frames = sum(watcher.frames for watcher in watchers)
    updates = (len(feed["depth"]) + len(feed["trades"])) * len(watchers)
    measured = sum(len(watcher.came[kind]) for watcher in watchers for kind in MEASURED)
    what = f"{len(everybody):,} WebSocket clients, {UPDATES_PER_S} updates/s{', ' + how if how else ''}"
    return [
        Figure(f"{what}: p99 behind of the client that is furthest behind", max(p99s) * 1e3, "ms", goal),
        Figure("  p50 of all", percentile(everything, 50) * 1e3, "ms"),
        Figure("  p99 of all", percentile(everything, 99) * 1e3, "ms"),
        Figure("  max", max(everything) * 1e3, "ms"),
        Figure("  clients that were closed", len(everybody) - len(watchers), "", "0"),
        Figure("  CPU of market-data, of one core", 100 * feed["cpu_s"] / feed["took_s"], "%", "<= 100 %"),
        Figure("  frames sent", frames / feed["took_s"], "/s", "", f"{feed['encoded']:,.0f} encoded"),
        Figure("  updates in a frame", updates / measured, ""),
    ]


@asynccontextmanager
async def _feeding(seconds: float) -> AsyncIterator[tuple[Any, int]]:
    """market-data with its metronome: a way to tell it to go, which gives what it says then, and its port."""
    command = [sys.executable, "-m", "bench.fanout_feed", str(UPDATES_PER_S), str(seconds)]
    async with await anyio.open_process(command, stderr=None) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = BufferedByteReceiveStream(process.stdout)
        try:
            with anyio.fail_after(OPEN_S):
                port = int(await lines.receive_until(b"\n", LINE_BYTES))

            async def say(line: bytes) -> bytes:
                assert process.stdin is not None
                await process.stdin.send(line)
                with anyio.fail_after(seconds * 10 + OPEN_S):
                    return await lines.receive_until(b"\n", LINE_BYTES)

            yield say, port
        finally:
            process.kill()


@asynccontextmanager
async def _gateway(upstream: int) -> AsyncIterator[int]:
    """A gateway that has nothing but this market-data behind it; its port."""
    port = free_port()
    own = {"PORT": port, "MARKET_DATA_WS_ADDRESS": f"127.0.0.1:{upstream}", "LOG_LEVEL": "ERROR"}
    own |= {"LOCAL_MODE": True} | {name.upper(): limit for name, limit in HIGH_LIMITS.items()}
    nobody = {"ORDERS_INTERNAL_ADDRESS": "127.0.0.1:1", "MARKET_DATA_ADDRESS": "127.0.0.1:1"}
    env = os.environ | {f"EXCHANGE_{name}": str(value) for name, value in (own | nobody).items()}
    async with await anyio.open_process(
        [sys.executable, "-m", "gateway"], stdin=None, stdout=None, stderr=None, env=env
    ) as process:
        try:
            with anyio.fail_after(OPEN_S):
                while True:
                    try:
                        await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                        break
                    except OSError:
                        await anyio.sleep(0.05)
            yield port
        finally:
            with suppress(ProcessLookupError):  # What it had to say of that it has printed.
                process.kill()


async def fanout_figures(seconds: float, clients: int = CLIENTS) -> list[Figure]:
    """All three: directly, beside slow clients, and through the gateway."""
    return [
        *await fan_out(clients, seconds),
        *await fan_out(clients, seconds, slow=SLOW),
        *await fan_out(clients, seconds, spliced=True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fanout", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each run (default 10)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"default {CLIENTS}")
    parser.add_argument("--direct", action="store_true", help="only the first of the three runs")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    run = fan_out if given.direct else fanout_figures
    arguments = (given.clients, given.seconds) if given.direct else (given.seconds, given.clients)
    figures = anyio.run(partial(run, *arguments), backend_options={"use_uvloop": True})
    print(as_markdown(figures))
    if given.json is not None:
        given.json.write_text(json.dumps({"time": time.time(), "figures": as_data(figures)}, indent=1))


if __name__ == "__main__":
    main()
