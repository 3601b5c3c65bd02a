"""Fewer states, the same behaviour: what makes the exhaustive search small enough.

Readers pass over records that say nothing to them. When no failover can come any more, which might give
them a meaning again, records that say nothing to anybody are forgotten, and so is by how much a token
is stale. Processes of a kind are alike, so states keep them sorted.
"""

from functools import cache

from common.core.sequencing import Verdict
from tests.specification.protocol import Rules
from tests.specification.state import Engine, Postgres, Settlement, Settler, State

Engines = tuple[Engine, Engine]
Settlers = tuple[Settler, Settler]


class Reduction:
    """The parts of a state are tidied apart and remembered: they are far fewer than the states."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._orders = cache(self._tidy_orders)
        self._settlements = cache(self._tidy_settlements)

    def tidy(self, state: State, final: bool) -> State:
        """`final`: PostgreSQL cannot fail over any more."""
        faults, pg, behind, failovers, orders, settlements, relays, engines, settlers = state
        watermark = pg.watermark
        rereads = not final or faults > 0
        orders, relays, engines = self._orders(orders, relays, engines, watermark, final, rereads)
        fence = pg._replace(published=0, ledger=())
        settlements, settlers = self._settlements(settlements, settlers, fence, final)
        if final and (pg.matching > 2 or pg.settling > 2):
            settlements, engines, settlers = _forget_ages(pg, settlements, engines, settlers)
            pg = pg._replace(matching=min(pg.matching, 2), settling=min(pg.settling, 2))
        return State(faults, pg, behind, failovers, orders, settlements, relays, engines, settlers)

    def _tidy_orders(
        self,
        orders: tuple[str, ...],
        relays: tuple[str, str],
        engines: Engines,
        watermark: str,
        final: bool,
        rereads: bool,
    ) -> tuple[tuple[str, ...], tuple[str, str], Engines]:
        def says_nothing(engine: Engine, batch: str) -> bool:
            seen = self.rules.engine_judges(engine, batch, watermark) is Verdict.SEEN
            return seen and (engine.token <= 0 or watermark.startswith(batch))

        positions = []
        for engine in engines:
            position = engine.position
            while engine.token >= 0 and position < len(orders) and says_nothing(engine, orders[position]):
                position += 1
            positions.append(position)
        if final:
            running = [(e, at) for e, at in zip(engines, positions, strict=True) if e.token >= 0]
            # Without a fault to come, nobody who runs well reads from the start of the topic again.
            rereads = rereads or not all(e.token >= 0 and e.session and e.books == e.chain for e in engines)
            kept = [
                index
                for index, batch in enumerate(orders)
                if (rereads and not watermark.startswith(batch))
                or any(index >= at and not says_nothing(engine, batch) for engine, at in running)
            ]
            orders = tuple(orders[index] for index in kept)
            positions = [sum(index < at for index in kept) for at in positions]
            held = sorted("" if watermark.startswith(batch) else batch for batch in relays)
            relays = (held[0], held[1])
        one, two = sorted(e._replace(position=at) for e, at in zip(engines, positions, strict=True))
        return orders, relays, (one, two)

    def _tidy_settlements(
        self, settlements: tuple[Settlement, ...], settlers: Settlers, pg: Postgres, final: bool
    ) -> tuple[tuple[Settlement, ...], Settlers]:
        silent = []
        for settlement in settlements:
            stale = settlement.token < pg.matching and not self.rules.token_is_valid(pg, settlement.token)
            silent.append(stale or self.rules.tx2_judges(pg, settlement.batch) is Verdict.SEEN)
        tidied = []
        for settler in settlers:
            position = settler.position
            if settler.token != pg.settling or not settler.token:
                position = 0  # It will be refused, whatever it reads.
            else:
                while position < len(settlements) and silent[position]:
                    position += 1
                if final:
                    position -= sum(silent[:position])
            tidied.append(settler._replace(position=position))
        if final:
            settlements = tuple(s for s, nothing in zip(settlements, silent, strict=True) if not nothing)
        one, two = sorted(tidied)
        return settlements, (one, two)


def _forget_ages(
    pg: Postgres, settlements: tuple[Settlement, ...], engines: Engines, settlers: Settlers
) -> tuple[tuple[Settlement, ...], Engines, Settlers]:
    """Tokens are only compared with the current one: call that 2, and all that are older 1."""

    def aged(token: int, current: int) -> int:
        return token if token <= 0 or current <= 2 else max(token - current + 2, 1)

    one, two = sorted(e._replace(token=aged(e.token, pg.matching)) for e in engines)
    first, second = sorted(s._replace(token=aged(s.token, pg.settling)) for s in settlers)
    sent = tuple(s._replace(token=aged(s.token, pg.matching)) for s in settlements)
    return sent, (one, two), (first, second)
