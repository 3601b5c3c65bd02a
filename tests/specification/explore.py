"""Breadth-first search through every state that a protocol can reach. Knows nothing of exchanges.

Safety: no state that can be reached may be wrong; the first that is comes with a shortest trace to it.
Liveness: from every state that can be reached, steps of the protocol alone (no fault, no client) can
lead to a good one. It is found backwards, from the good states along the edges of such steps.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

S = TypeVar("S", bound=Hashable)

STUCK = "stuck"  # The trace ends in a state from which no steps of the protocol lead to a good one.


class Step(NamedTuple):
    """`helps`: the protocol does it by itself, so that a way home may use it."""

    name: str
    helps: bool


class System(Protocol[S]):
    def start(self) -> S: ...

    def steps(self, state: S) -> Iterator[tuple[Step, S]]:
        """Everything that can happen in this state."""

    def wrong(self, state: S) -> str:
        """The kind of harm done; empty when there is none."""

    def good(self, state: S) -> bool:
        """Whether everything that was promised has happened."""


@dataclass(frozen=True)
class Found:
    """`kind` is empty when nothing is wrong; otherwise `trace` leads from the start to the violation."""

    states: int
    transitions: int
    kind: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        looked = (
            f"{self.states:,} states, {self.transitions:,} transitions: {self.kind or 'all as specified'}"
        )
        return "\n".join([looked, *(f"{number:4} {line}" for number, line in enumerate(self.trace))])


def explore(system: System[S]) -> Found:
    """Look at every state; the search ends at the first one that is wrong."""
    start = system.start()
    numbers: dict[S, int] = {start: 0}
    states = [start]
    came_from = [0]
    helped_from: list[list[int]] = [[]]
    transitions = 0
    for number, state in enumerate(states):  # It grows meanwhile.
        for step, after in system.steps(state):
            transitions += 1
            known = numbers.get(after)
            if known is None:
                known = numbers[after] = len(states)
                states.append(after)
                came_from.append(number)
                helped_from.append([])
                kind = system.wrong(after)
                if kind:
                    return Found(len(states), transitions, kind, _trace(system, states, came_from, known))
            if step.helps:
                helped_from[known].append(number)
    stuck = _first_stuck([system.good(state) for state in states], helped_from)
    if stuck is not None:
        return Found(len(states), transitions, STUCK, _trace(system, states, came_from, stuck))
    return Found(len(states), transitions)


def _first_stuck(home: list[bool], helped_from: list[list[int]]) -> int | None:
    """The first state from which none that is home can be reached; `home` is used up."""
    todo = [number for number, good in enumerate(home) if good]
    while todo:
        for before in helped_from[todo.pop()]:
            if not home[before]:
                home[before] = True
                todo.append(before)
    return next((number for number, reached in enumerate(home) if not reached), None)


def _trace(system: System[S], states: list[S], came_from: list[int], number: int) -> tuple[str, ...]:
    """The steps from the start, each with the state that it leads to."""
    lines: list[str] = []
    while number:
        before = came_from[number]
        name = next(step.name for step, after in system.steps(states[before]) if after == states[number])
        lines.append(f"{name}\n       {states[number]}")
        number = before
    return ("start", *reversed(lines))
