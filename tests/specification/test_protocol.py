"""The protocol holds in every state that can be reached; broken, it is caught, each time by a trace.

The traces and the sizes of the searches are logged: `pytest tests/specification --log-cli-level=INFO`.
"""

import logging

import pytest

from tests.specification import mutations as broken
from tests.specification.explore import STUCK, Found, explore
from tests.specification.faults import ENDLESS, Exchange
from tests.specification.protocol import Rules
from tests.specification.state import Fault

log = logging.getLogger(__name__)

Faults = frozenset[Fault]
NONE: Faults = frozenset()
WIPE: Faults = frozenset({Fault.WIPE})
TWICE: Faults = frozenset({Fault.TWICE})
LOST_COMMIT: Faults = frozenset({Fault.FAILOVER})
ALL_BUT_LOST_COMMITS: Faults = frozenset({Fault.CRASH, Fault.HANG, Fault.WIPE, Fault.TWICE})
ALL: Faults = ALL_BUT_LOST_COMMITS | LOST_COMMIT
FORKED_WHILE_STALE: Faults = frozenset({Fault.HANG, Fault.WRONG})


def search(rules: Rules, kinds: Faults, *, batches: int, faults: int, longest: int = 14) -> Found:
    found = explore(Exchange(rules, batches=batches, faults=faults, kinds=kinds, longest=longest))
    log.info("%s, %d batches, %d faults: %s", type(rules).__name__, batches, faults, found)
    return found


@pytest.mark.parametrize(
    ("kinds", "batches", "faults", "least_states"),
    [
        (ALL, 3, 1, 100_000),
        (ALL_BUT_LOST_COMMITS, 2, 2, 10_000),
        (FORKED_WHILE_STALE, 2, 2, 1_000),
    ],
    ids=["any fault, three batches", "two faults, two batches", "an engine forks while its token is stale"],
)
def test_the_protocol_is_safe_and_can_always_go_on(
    kinds: Faults, batches: int, faults: int, least_states: int
) -> None:
    found = search(Rules(), kinds, batches=batches, faults=faults)
    assert not found.kind, str(found)
    assert found.states >= least_states, "the search was cut short"


@pytest.mark.parametrize(
    ("rules", "kinds", "faults", "kind", "told"),
    [
        (broken.NoWatermark(), TWICE, 1, "settled twice", "FAULT: a rewind without need"),
        (broken.OutOfOrderUnseen(), NONE, 0, "a promise was passed over", "relay publishes ab"),
        (broken.NoRewind(), WIPE, 1, STUCK, "FAULT: Kafka is wiped"),
        (broken.NoChain(), LOST_COMMIT, 1, "settled what nobody was promised", "PostgreSQL fails over"),
        (broken.NoFence(), FORKED_WHILE_STALE, 2, "balances do not follow the log", "goes wrong"),
    ],
    ids=["no watermark", "relay out of order", "no rewind", "no chain", "no fence, and a fork"],
)
def test_a_broken_protocol_is_caught(rules: Rules, kinds: Faults, faults: int, kind: str, told: str) -> None:
    found = search(rules, kinds, batches=2, faults=faults)
    assert found.kind == kind, str(found)
    assert any(told in line for line in found.trace), str(found)


@pytest.mark.parametrize(
    ("rules", "kinds", "batches", "kind", "told"),
    [
        (broken.ChainOfWatermarkAlone(), LOST_COMMIT, 2, "settled what nobody was promised", "TX2 of"),
        (broken.MisledAgain(), LOST_COMMIT, 1, ENDLESS, "a fork"),
        (broken.SeenByNumber(), LOST_COMMIT, 2, ENDLESS, "seen"),
        (broken.WaitsForever(), WIPE, 2, ENDLESS, "a gap"),
    ],
    ids=["TX2 without the outbox", "the topic read again", "seen by number", "behind the watermark"],
)
def test_what_the_search_has_taught_is_needed(
    rules: Rules, kinds: Faults, batches: int, kind: str, told: str
) -> None:
    # The unbroken protocol writes no more than nine records to a topic in these searches.
    assert not search(Rules(), kinds, batches=batches, faults=1, longest=9).kind
    found = search(rules, kinds, batches=batches, faults=1, longest=9)
    assert found.kind == kind, str(found)
    assert any(told in line for line in found.trace), str(found)


def test_without_the_fence_deterministic_engines_are_still_safe() -> None:
    found = search(broken.NoFence(), ALL_BUT_LOST_COMMITS, batches=2, faults=1)
    assert not found.kind, str(found)
    assert found.states >= 500, "the search was cut short"


def test_the_trace_of_a_violation_can_be_read() -> None:
    found = search(broken.NoWatermark(), TWICE, batches=1, faults=1)
    steps = [line.splitlines()[0] for line in found.trace]
    assert steps[:3] == ["start", "TX1 commits a", "relay publishes a"]
    assert steps[-1] == "TX2 of a under token 1: settled"
    assert "settled twice" in str(found)
