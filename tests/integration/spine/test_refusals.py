"""What TX2 refuses of a matching: an old token at once, a contradiction until a person has looked."""

from collections.abc import AsyncIterator

import httpx
import pytest

from common import stops, wire
from common.core.engine import Engine
from common.core.messages import Settlement
from common.kafka_reader import Record
from common.restore import restore
from exchange.v1 import types_pb2 as ty
from tests.integration.spine.spine import BUY, MATCHINGS, ORDER_SERVICE, Spine, order

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000

_BATCH = """
SELECT partition, first_sequence, time_us, previous_chain, chain, commands FROM outbox
WHERE partition = 0 AND first_sequence > %s ORDER BY first_sequence LIMIT 1
"""


class Waiting:
    """An order that is accepted while no matching runs, and what a matching would make of it."""

    def __init__(self, user: int, order_id: int, settlement: Settlement, token: int) -> None:
        self.user = user
        self.order_id = order_id
        self.settlement = settlement
        self.token = token  # Of the last leader.

    def record(self, token: int) -> Record:
        [part] = wire.settlement_parts(self.settlement)
        return Record(0, part, token, -1)


@pytest.fixture
async def waiting(spine: Spine) -> AsyncIterator[Waiting]:
    user = await spine.join()
    await spine.settled()
    for name in MATCHINGS:
        spine.exchange.kill(name)
    [accepted] = await spine.place(user, order(BUY, PRICE, LOTS))
    restored = await restore(spine.connection, 0)
    engine = Engine(0)
    engine.restore(restored.snapshot)
    [row] = await spine.rows(_BATCH, engine.sequence)
    names = ("partition", "first_sequence", "time_us", "previous_chain", "chain", "commands")
    record = wire.encode_batch(**dict(zip(names, row, strict=True)))  # type: ignore[arg-type]  # columns of mixed types
    settlement = engine.apply(wire.decode_batch(record)).settlement
    _, token = await spine.leader("matching", 0)
    yield Waiting(user, accepted.order_id, settlement, token)
    spine.exchange.start(*MATCHINGS)
    await spine.settled()
    assert (await spine.order(user, accepted.order_id)).status == ty.ORDER_STATUS_OPEN
    await spine.cancel_all(user)


async def refusals(spine: Spine, cause: str) -> float:
    port = spine.exchange.ports.health[ORDER_SERVICE]
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    name = f'exchange_settlement_refusals_total{{cause="{cause}",partition="0"}} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


async def test_the_words_of_an_old_leader_are_refused(spine: Spine, waiting: Waiting) -> None:
    before = await refusals(spine, "token")
    await spine.inject("settlements", 0, [waiting.record(waiting.token - 1)])

    async def refused() -> bool:
        return await refusals(spine, "token") == before + 1

    await spine.until(refused)
    assert (await spine.order(waiting.user, waiting.order_id)).status == ty.ORDER_STATUS_ACCEPTED


async def test_a_contradiction_stops_the_partition_until_a_person_resumes_it(
    spine: Spine, waiting: Waiting
) -> None:
    before = await spine.money()
    waiting.settlement.orders[0].held_atoms -= 1
    await spine.inject("settlements", 0, [waiting.record(waiting.token)])

    async def stopped() -> bool:
        [(reason,)] = await spine.rows("SELECT stopped FROM watermarks WHERE partition = 0")
        return reason is not None and "would hold" in str(reason)

    await spine.until(stopped)
    assert await spine.money() == before
    port = spine.exchange.ports.health[ORDER_SERVICE]
    async with httpx.AsyncClient(trust_env=False) as client:
        ready = await client.get(f"http://127.0.0.1:{port}/readyz")
    assert ready.status_code == 200  # The other partitions go on.
    part = ready.json()["parts"]["settlement 0"]
    assert not part["ok"]
    assert "would hold" in part["detail"]
    # Leading again raises the token, so the wrong record is one of an old leader.
    spine.exchange.start(*MATCHINGS)

    async def led() -> bool:
        _, token = await spine.leader("matching", 0)
        return token > waiting.token

    await spine.until(led)
    await stops.resume(spine.connection, stops.Act(0, "tester", "a test made the contradiction"))
    await spine.settled()
    for name in MATCHINGS:  # As the fixture left them.
        spine.exchange.kill(name)
