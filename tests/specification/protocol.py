"""The protocol of DESIGN I1 to I8 for one partition, as steps from state to state.

A batch has one command, a letter, and the chain after it is its whole history: batch "abc" is command c
after batch "ab", and its sequence is its length. The engine is a free function: its books are the
commands that it has applied, and the events of a batch are the books after it. Whatever an engine does
otherwise shows there, so what holds here holds for every deterministic engine.
"""

from collections.abc import Iterator

from common.core.sequencing import Verdict
from tests.specification.explore import Step
from tests.specification.state import (
    DOWN,
    Engine,
    Postgres,
    Settlement,
    Settler,
    State,
    events_of,
    publish,
    restored,
    verdict_of,
    with_engine,
    with_settler,
)

Steps = Iterator[tuple[Step, State]]
COMMANDS = ("abcd", "ABCD")  # Before and after a failover: what it lost never comes again the same.


class Rules:
    """The decisions, one method each, so that a mutation is a subclass that changes one of them."""

    def next_to_publish(self, pg: Postgres) -> list[str]:
        """I3: in sequence."""
        return [pg.log[: pg.published + 1]] if pg.published < len(pg.log) else []

    def set_back(self, pg: Postgres) -> Postgres:
        """I3: the cursor goes back to the watermark."""
        return pg._replace(published=len(pg.watermark))

    def engine_judges(self, engine: Engine, batch: str, watermark: str) -> Verdict:
        """I4. What it has seen and nobody has settled must be what it has kept, chain and all."""
        verdict = verdict_of(engine.chain, batch)
        is_kept = len(batch) <= len(watermark) or engine.chain.startswith(batch)
        return Verdict.FORK if verdict is Verdict.SEEN and not is_kept else verdict

    def reads_on_from(self, state: State) -> int:
        """Where an engine begins to read that the topic made restore: what lies there has misled it once, so
        it takes only what the relay, set back, sends from now on."""
        return len(state.orders)

    def must_restore(self, pg: Postgres, engine: Engine) -> bool:
        """A rewind gives back what is above the watermark; an engine that lacks more can only restore."""
        return len(engine.chain) < len(pg.watermark)

    def token_is_valid(self, pg: Postgres, token: int) -> bool:
        """I6."""
        return token == pg.matching

    def tx2_judges(self, pg: Postgres, batch: str) -> Verdict:
        """I7: the chain must continue the watermark's, and the batch must be the one in the outbox."""
        verdict = verdict_of(pg.watermark, batch)
        return verdict if verdict is Verdict.SEEN or pg.log.startswith(batch) else Verdict.FORK

    def stays_warm(self, engine: Engine) -> bool:
        """An engine that has lost its lease goes on as a standby, unless a digest shows its books wrong."""
        return engine.books == engine.chain


class Protocol:
    """Two engines, two relays, two settlers, and clients that commit `batches` batches; no faults."""

    def __init__(self, batches: int, rules: Rules) -> None:
        self.batches, self.rules = batches, rules

    def steps(self, state: State) -> Steps:
        yield from self.clients(state)
        yield from self.relays(state)
        yield from self.engines(state)
        yield from self.settlers(state)

    def clients(self, state: State) -> Steps:
        """TX1: hold, order and outbox row at the next sequence, the chain extended: a promise (I1, I2)."""
        log = state.pg.log
        if len(log) < self.batches:
            log += COMMANDS[state.failovers][len(log)]
            yield Step(f"TX1 commits {log}", False), state._replace(pg=state.pg._replace(log=log))

    def relays(self, state: State) -> Steps:
        """I3. Taking the cursor, publishing and moving it is one step: the row is locked meanwhile."""
        pg = state.pg
        if "" in state.relays:
            moved = state._replace(pg=pg._replace(published=pg.published + 1))
            for batch in self.rules.next_to_publish(pg):
                yield Step(f"relay publishes {batch}", True), publish(moved, batch)
        for index, batch in enumerate(state.relays):
            if batch:  # Its session is gone, so it cannot move the cursor.
                woken = state._replace(relays=("", state.relays[1 - index]))
                yield Step(f"a relay wakes, and its {batch} lands late", True), publish(woken, batch)
        if self.stands_still(state):
            yield Step("the watermark stands: rewind", True), state._replace(pg=self.rules.set_back(pg))

    def stands_still(self, state: State) -> bool:
        """A leader and a settler have read everything, and the watermark is still behind the cursor."""
        pg = state.pg
        return (
            len(pg.watermark) < pg.published == len(pg.log)
            and any(e.token == pg.matching > 0 and e.position == len(state.orders) for e in state.engines)
            and any(
                s.token == pg.settling > 0 and s.position == len(state.settlements) for s in state.settlers
            )
        )

    def engines(self, state: State) -> Steps:
        pg = state.pg
        led = any(engine.token == pg.matching > 0 and engine.session for engine in state.engines)
        for index, engine in enumerate(state.engines):
            who = f"engine {engine.token}" if engine.token else "standby"
            if engine == DOWN:
                yield Step("an engine restores", True), with_engine(state, index, restored(pg))
            elif not engine.session:
                yield Step(f"{who} has lost PostgreSQL: ends", True), with_engine(state, index, DOWN)
            elif engine.token and engine.token != pg.matching:
                left = engine._replace(token=0) if self.rules.stays_warm(engine) else DOWN
                yield Step(f"{who} finds its lease lost", True), with_engine(state, index, left)
            elif not engine.token and not led:
                yield Step("standby takes over", True), self.take_over(state, index)
            if engine != DOWN and engine.position < len(state.orders):
                name, after = self.consume(state, index)
                yield Step(f"{who} reads {state.orders[engine.position]}: {name}", True), after

    def take_over(self, state: State, index: int) -> State:
        """A new token, then a look at the watermark; what was kept above it is published (I5, I8)."""
        pg = state.pg._replace(matching=state.pg.matching + 1)
        engine = state.engines[index]
        if self.rules.must_restore(pg, engine):
            engine = restored(pg)
        engine = engine._replace(token=pg.matching)
        kept = range(len(pg.watermark) + 1, len(engine.chain) + 1)
        sent = tuple(events_of(engine, sequence) for sequence in kept)
        return with_engine(state._replace(pg=pg, settlements=state.settlements + sent), index, engine)

    def consume(self, state: State, index: int) -> tuple[str, State]:
        """I4: apply what is next, tell again what is not settled, have a gap filled, leave a fork."""
        pg, engine = state.pg, state.engines[index]
        batch = state.orders[engine.position]
        engine = engine._replace(position=engine.position + 1)
        verdict = self.rules.engine_judges(engine, batch, pg.watermark)
        if verdict in (Verdict.FORK, Verdict.GAP):
            state = state._replace(pg=self.rules.set_back(pg))
            if verdict is Verdict.FORK or self.rules.must_restore(pg, engine):
                engine = restored(pg)._replace(position=self.rules.reads_on_from(state))
            return f"a {verdict.value}", with_engine(state, index, engine)
        if verdict is Verdict.NEXT:
            engine = engine._replace(chain=batch, books=engine.books + batch[-1])
        if engine.token > 0:
            state = state._replace(settlements=(*state.settlements, events_of(engine, len(batch))))
        return verdict.value, with_engine(state, index, engine)

    def settlers(self, state: State) -> Steps:
        pg = state.pg
        led = any(settler.token == pg.settling > 0 for settler in state.settlers)
        for index, settler in enumerate(state.settlers):
            if not settler.token:
                if not led:
                    yield Step("settler takes over", True), self.settle_instead(state, index)
            elif settler.token != pg.settling:
                yield Step(f"settler {settler.token} is refused", True), with_settler(state, index, Settler())
            elif settler.position < len(state.settlements):
                settlement = state.settlements[settler.position]
                name, settled = self.tx2(pg, settlement)
                passed = with_settler(state, index, settler._replace(position=settler.position + 1))
                yield Step(f"TX2 of {settlement}: {name}", True), passed._replace(pg=settled)

    def settle_instead(self, state: State, index: int) -> State:
        pg = state.pg._replace(settling=state.pg.settling + 1)
        return with_settler(state._replace(pg=pg), index, Settler(pg.settling))

    def tx2(self, pg: Postgres, settlement: Settlement) -> tuple[str, Postgres]:
        """I6, I7: the checks in their order; the watermark moves with what they allow."""
        verdict = self.rules.tx2_judges(pg, settlement.batch)
        if verdict is Verdict.SEEN:
            return "settled before, only told again", pg
        if not self.rules.token_is_valid(pg, settlement.token):
            return "refused", pg
        if verdict is Verdict.GAP:
            return "a gap, asks for a rewind", self.rules.set_back(pg)
        if verdict is Verdict.FORK:
            return "a fork, alarm", pg
        ledger = (*pg.ledger, (settlement.batch, settlement.events))
        return "settled", pg._replace(watermark=settlement.batch, ledger=ledger)
