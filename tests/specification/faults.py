"""What can go wrong, at any step, and the whole system that is explored: protocol, faults, reduction."""

from collections.abc import Iterator

from tests.specification.explore import Step
from tests.specification.protocol import Protocol, Rules, Steps
from tests.specification.reduce import Reduction
from tests.specification.state import (
    DOWN,
    Engine,
    Fault,
    Postgres,
    Settler,
    State,
    fail_over,
    hang_relay,
    harm,
    publish,
    wipe_kafka,
    with_engine,
    with_settler,
)

Misfortunes = Iterator[tuple[Fault, str, State]]

ENDLESS = "a topic grows without end"
LONGEST = 14  # Records of a topic: more than the protocol ever writes in these searches.


class Exchange:
    """The protocol under up to `faults` faults of these kinds, in any combination and at any moment."""

    def __init__(
        self, rules: Rules, *, batches: int, faults: int, kinds: frozenset[Fault], longest: int = LONGEST
    ) -> None:
        self.rules, self.faults, self.kinds, self.longest = rules, faults, kinds, longest
        self.protocol = Protocol(batches, rules)
        self.reduction = Reduction(rules)

    def start(self) -> State:
        """One leads, one settles, their rivals wait; a crash is all it takes to have it otherwise."""
        pg = Postgres(matching=1, settling=1)
        return State(
            self.faults, pg, engines=(Engine(), Engine(token=1)), settlers=(Settler(), Settler(token=1))
        )

    def wrong(self, state: State) -> str:
        if len(state.orders) > self.longest or len(state.settlements) > self.longest:
            return ENDLESS
        return harm(state.pg.log, state.pg.ledger)

    def good(self, state: State) -> bool:
        return state.pg.watermark == state.pg.log

    def steps(self, state: State) -> Steps:
        may_lag = state.faults > 0 and not state.failovers and Fault.FAILOVER in self.kinds
        for step, after in self.protocol.steps(state):
            yield step, self.tidied(after)
            if may_lag and state.behind is None and after.pg != state.pg:
                lost = after._replace(behind=state.pg, faults=state.faults - 1)
                yield (
                    Step(f"{step.name} (FAULT: PostgreSQL's standby lags from here)", False),
                    self.tidied(lost),
                )
        if state.faults:
            for kind, name, after in self.misfortunes(state):
                if kind in self.kinds:
                    yield Step(f"FAULT: {name}", False), self.tidied(after._replace(faults=state.faults - 1))
        if state.behind is not None:
            yield Step("FAULT: PostgreSQL fails over", False), self.tidied(fail_over(state))

    def misfortunes(self, state: State) -> Misfortunes:
        yield Fault.WIPE, "Kafka is wiped", wipe_kafka(state)
        pg = state.pg
        if pg.published > len(pg.watermark):
            yield Fault.TWICE, "a rewind without need", state._replace(pg=self.rules.set_back(pg))
        if "" in state.relays:
            for batch in self.rules.next_to_publish(pg):
                yield (
                    Fault.CRASH,
                    f"a relay dies between publishing {batch} and its cursor",
                    publish(state, batch),
                )
                yield Fault.HANG, f"a relay hangs with {batch}", hang_relay(state, batch)
        yield from self.misfortunes_of_engines(state)
        for index, settler in enumerate(state.settlers):
            if settler.token:
                yield Fault.CRASH, f"settler {settler.token} dies", with_settler(state, index, Settler())
            elif state.settlers[1 - index].token == pg.settling > 0:
                after = self.protocol.settle_instead(state, index)
                yield Fault.HANG, f"settler {pg.settling} hangs and is replaced", after

    def misfortunes_of_engines(self, state: State) -> Misfortunes:
        pg = state.pg
        for index, engine in enumerate(state.engines):
            rival = state.engines[1 - index]
            if engine != DOWN:
                yield Fault.CRASH, f"engine {engine.token} dies", with_engine(state, index, DOWN)
            if not engine.token and engine.session and rival.token == pg.matching > 0:
                after = self.protocol.take_over(state, index)
                yield Fault.HANG, f"engine {rival.token} hangs and is replaced", after
            if 0 < engine.token < pg.matching and engine.books == engine.chain != "":
                wrong = engine._replace(books=engine.books[:-1] + "!")
                yield Fault.WRONG, f"engine {engine.token} goes wrong", with_engine(state, index, wrong)

    def tidied(self, state: State) -> State:
        may_lag = state.faults > 0 and not state.failovers and Fault.FAILOVER in self.kinds
        return self.reduction.tidy(state, state.behind is None and not may_lag)
