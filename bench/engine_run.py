"""One measurement of the engine in a process of its own.

`python -m bench.engine_run LIVE MARKETS COMMANDS PASSES` prints JSON. The commands are made beforehand; what
is timed is `Engine.apply` alone, and dropping what it gave, in CPU time of this process, so that others on
the machine disturb it less. The collector is set as in the daemons. The digests of all books, which an engine
takes once in at least as many commands as orders rest, are measured where the flow passes such a place, and
counted with their share.
"""

import gc
import json
import sys
import time
from dataclasses import asdict, dataclass
from statistics import fmean

import psutil

from bench.engine_flow import BATCH, PARTITION, Flow
from common import core
from common.core.engine import DIGEST_EVERY, Engine
from common.core.messages import Batch
from common.supervise import calm_collector

SEED = 1


@dataclass(slots=True)
class Run:
    """`command_us`: microseconds a command in the best pass. `restored_bytes`: what one engine takes up."""

    compiled: bool
    command_us: float
    slowest_batch_ms: float
    restore_s: float
    restored_bytes: int


def measure(live: int, markets: int, commands: int, passes: int) -> Run:
    flow = Flow(SEED, live, markets)
    calm_collector()
    before_bytes = _resident_bytes()
    engine, restore_s = _restored(flow)
    restored_bytes = _resident_bytes() - before_bytes
    batches = flow.batches(engine, commands)
    figures = []
    for _ in range(passes):
        del engine  # Its orders refer to each other: only the collector lets them go.
        gc.unfreeze()
        gc.collect()
        engine, again_s = _restored(flow)
        restore_s = min(restore_s, again_s)
        calm_collector()
        figures.append(_pass(engine, batches))
    command_us, slowest_batch_ms = min(figures)
    return Run(core.COMPILED, command_us, slowest_batch_ms, restore_s, restored_bytes)


def _restored(flow: Flow) -> tuple[Engine, float]:
    engine = Engine(PARTITION)
    begun_s = time.process_time()
    engine.restore(flow.snapshot)
    return engine, time.process_time() - begun_s


def _pass(engine: Engine, batches: list[Batch]) -> tuple[float, float]:
    plain_s: list[float] = []
    digested_s: list[float] = []
    for batch in batches:
        begun_s = time.process_time()
        digests = bool(engine.apply(batch).settlement.digests)
        (digested_s if digests else plain_s).append(time.process_time() - begun_s)
    every = DIGEST_EVERY
    while every < engine.resting_orders:
        every *= 2
    batch_s = fmean(plain_s)
    digest_s = fmean(digested_s) - batch_s if digested_s else 0.0
    return (batch_s / BATCH + digest_s / every) * 1e6, max(plain_s) * 1e3


def _resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    print(json.dumps(asdict(measure(*map(int, sys.argv[1:])))))
