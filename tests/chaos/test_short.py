"""The short round: a few minutes of live load with the quick faults, in the order of the run's seed."""

from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.chaos.faults import all_kinds
from tests.chaos.runner import Options, possible, run
from tests.chaos.schedule import one_cycle

SECONDS = 210.0
REST_EVERY = 5
LEAST_FAULTS = 5


def test_the_same_seed_gives_the_same_faults(seed: int) -> None:
    kinds = possible(all_kinds())
    first, again, other = (list(map(str, one_cycle(number, kinds))) for number in (seed, seed, seed + 1))
    assert first == again
    assert first != other
    assert len(first) >= len(kinds)


def test_nothing_is_lost_and_nothing_happens_twice(seed: int, tmp_path: Path) -> None:
    steps = one_cycle(seed, [kind for kind in possible(all_kinds()) if kind.quick])
    say = partial(print, flush=True)
    options = Options(seed, SECONDS, REST_EVERY)
    outcome = anyio.run(partial(run, options, steps, tmp_path, say), backend_options={"use_uvloop": True})
    if outcome.failure:
        pytest.fail(f"the same again: pytest tests/chaos --seed {seed}\n{outcome.failure}", pytrace=False)
    print(f"not reached: {[step.kind for step in steps[len(outcome.ran) :]]}")
    assert len(outcome.ran) >= LEAST_FAULTS
    assert outcome.verdicts
