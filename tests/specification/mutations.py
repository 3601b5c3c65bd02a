"""The protocol with one rule broken: each of these must be caught, or the search does not see enough."""

from common.core.sequencing import Verdict
from tests.specification.protocol import Rules
from tests.specification.state import Engine, Postgres, State, verdict_of


class NoWatermark(Rules):
    """TX2 does not ask what is settled already."""

    def tx2_judges(self, pg: Postgres, batch: str) -> Verdict:
        verdict = super().tx2_judges(pg, batch)
        return Verdict.NEXT if verdict is Verdict.SEEN else verdict


class OutOfOrder(Rules):
    """The relay may publish the last batch before those between."""

    def next_to_publish(self, pg: Postgres) -> list[str]:
        ahead = [pg.log] if pg.published + 1 < len(pg.log) else []
        return super().next_to_publish(pg) + ahead


class OutOfOrderUnseen(OutOfOrder):
    """And nobody looks whether something is missing."""

    def engine_judges(self, engine: Engine, batch: str, watermark: str) -> Verdict:
        verdict = super().engine_judges(engine, batch, watermark)
        return Verdict.NEXT if verdict is Verdict.GAP else verdict

    def tx2_judges(self, pg: Postgres, batch: str) -> Verdict:
        verdict = super().tx2_judges(pg, batch)
        return Verdict.NEXT if verdict is Verdict.GAP else verdict


class NoRewind(Rules):
    """What Kafka has lost stays lost."""

    def set_back(self, pg: Postgres) -> Postgres:
        return pg


class NoChain(Rules):
    """Batches are known by their sequence alone."""

    def engine_judges(self, engine: Engine, batch: str, watermark: str) -> Verdict:
        return by_sequence(engine.chain, batch)

    def tx2_judges(self, pg: Postgres, batch: str) -> Verdict:
        return by_sequence(pg.watermark, batch)


class ChainOfWatermarkAlone(Rules):
    """TX2 asks whether the batch continues the watermark, and not whether it is the one in the outbox."""

    def tx2_judges(self, pg: Postgres, batch: str) -> Verdict:
        return verdict_of(pg.watermark, batch)


class SeenByNumber(Rules):
    """An engine calls seen what is below its sequence, whatever its chain."""

    def engine_judges(self, engine: Engine, batch: str, watermark: str) -> Verdict:
        return verdict_of(engine.chain, batch)


class MisledAgain(Rules):
    """An engine that met a fork reads the topic from its start again."""

    def reads_on_from(self, state: State) -> int:
        return 0


class WaitsForever(Rules):
    """An engine behind the watermark hopes that a rewind brings what it lacks."""

    def must_restore(self, pg: Postgres, engine: Engine) -> bool:
        return False


class NoFence(Rules):
    """TX2 takes the events of any token. Alone, this is harmless: engines are deterministic."""

    def token_is_valid(self, pg: Postgres, token: int) -> bool:
        return True


def by_sequence(chain: str, batch: str) -> Verdict:
    if len(batch) <= len(chain):
        return Verdict.SEEN
    return Verdict.NEXT if len(batch) == len(chain) + 1 else Verdict.GAP
