"""What the model remembers, and small functions that change it. All values, so that states compare."""

from enum import Enum
from functools import cache
from typing import NamedTuple

from common.core.sequencing import Verdict, judge


class Fault(Enum):
    CRASH = "a process dies, the relay also between publishing and moving its cursor"
    HANG = "a process hangs, is replaced, and wakes"
    WIPE = "Kafka loses everything"
    FAILOVER = "PostgreSQL fails over to a standby that lags"
    TWICE = "the relay is set back without need: everything comes twice"
    WRONG = "an engine whose token is stale goes wrong"


class Postgres(NamedTuple):
    log: str = ""  # The outbox: what TX1 promised (I1, I2).
    published: int = 0  # The relay's cursor (I3): how many batches.
    watermark: str = ""  # The chain of the last settled batch (I7).
    ledger: tuple[tuple[str, str], ...] = ()  # (batch, events) as TX2 wrote them; balances are their sums.
    matching: int = 0  # The fencing tokens of the two leases (I5).
    settling: int = 0


class Engine(NamedTuple):
    token: int = 0  # 0: a warm standby. -1: not running.
    chain: str = ""
    books: str = ""
    position: int = 0  # In exchange.orders.
    session: bool = True  # False: PostgreSQL failed over, and the engine has not noticed yet.


class Settler(NamedTuple):
    token: int = 0  # 0: a standby.
    position: int = 0  # In exchange.settlements.


class Settlement(NamedTuple):
    batch: str
    events: str
    token: int

    def __str__(self) -> str:
        return f"{self.batch} under token {self.token}"


class State(NamedTuple):
    faults: int  # How many more may happen.
    pg: Postgres = Postgres()
    behind: Postgres | None = None  # What PostgreSQL's own standby has, once that lags.
    failovers: int = 0
    orders: tuple[str, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    relays: tuple[str, str] = ("", "")  # The batch with which a relay hangs.
    engines: tuple[Engine, Engine] = (Engine(), Engine())
    settlers: tuple[Settler, Settler] = (Settler(), Settler())

    def __str__(self) -> str:
        """One line of a trace."""
        pg = self.pg
        engines = [
            f"{e.token}:{e.chain or '-'}{'' if e.books == e.chain else f' ({e.books})'}@{e.position}"
            + ("" if e.session else " cut off")
            for e in self.engines
        ]
        return (
            f"log {pg.log or '-'}, published {pg.published}, settled {[events for _, events in pg.ledger]}, "
            f"tokens {pg.matching} {pg.settling}; orders {' '.join(self.orders) or '-'}; settlements "
            f"{' '.join(f'{s.batch}={s.events}/{s.token}' for s in self.settlements) or '-'}; engines "
            f"{', '.join(engines)}; settlers {', '.join(f'{s.token}@{s.position}' for s in self.settlers)}"
        )


DOWN = Engine(token=-1)


@cache
def verdict_of(chain: str, batch: str) -> Verdict:
    """The decision of the exchange's own code."""
    return judge(len(chain), chain.encode(), len(batch), len(batch), batch[:-1].encode(), batch.encode())


@cache
def harm(log: str, ledger: tuple[tuple[str, str], ...]) -> str:
    """What is wrong with what was settled; empty: it is the fold over the first batches of the log."""
    sequences = [len(batch) for batch, _ in ledger]
    if len(set(sequences)) < len(sequences):
        return "settled twice"
    if sequences != list(range(1, len(sequences) + 1)):
        return "a promise was passed over"
    if any(not log.startswith(batch) for batch, _ in ledger):
        return "settled what nobody was promised"
    if any(events != batch for batch, events in ledger):
        return "balances do not follow the log"
    return ""


def restored(pg: Postgres) -> Engine:
    """The books as of the watermark, read from PostgreSQL in one snapshot (I8)."""
    return Engine(chain=pg.watermark, books=pg.ledger[-1][1] if pg.ledger else "")


def events_of(engine: Engine, sequence: int) -> Settlement:
    """What the engine made of the batch at this sequence, under its token."""
    return Settlement(engine.chain[:sequence], engine.books[:sequence], engine.token)


def publish(state: State, batch: str) -> State:
    return state._replace(orders=(*state.orders, batch))


def with_engine(state: State, index: int, engine: Engine) -> State:
    other = state.engines[1 - index]
    return state._replace(engines=(engine, other) if engine <= other else (other, engine))


def with_settler(state: State, index: int, settler: Settler) -> State:
    other = state.settlers[1 - index]
    return state._replace(settlers=(settler, other) if settler <= other else (other, settler))


def hang_relay(state: State, batch: str) -> State:
    first, second = sorted((*(held for held in state.relays if held), batch, ""))[-2:]
    return state._replace(relays=(first, second))


def wipe_kafka(state: State) -> State:
    first, second = sorted(engine._replace(position=0) for engine in state.engines)
    one, two = sorted(settler._replace(position=0) for settler in state.settlers)
    return state._replace(orders=(), settlements=(), engines=(first, second), settlers=(one, two))


def fail_over(state: State) -> State:
    """What PostgreSQL's standby had not received is gone, tokens and cursor included; so is every session.

    Settlers read their place in exchange.settlements again; engines notice one by one.
    """
    assert state.behind is not None
    first, second = sorted(e if e == DOWN else e._replace(session=False) for e in state.engines)
    one, two = sorted(settler._replace(position=0) for settler in state.settlers)
    return state._replace(
        pg=state.behind, behind=None, failovers=1, engines=(first, second), settlers=(one, two)
    )
