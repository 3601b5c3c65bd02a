"""One replica: slices, standing still, and the switch from following to leading."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from common.core import messages as m
from common.core.engine import Engine
from common.kafka import Message
from common.kafka_reader import Record
from common.lease import Lease
from common.wire import SettlementJoiner
from daemons.matching import kept
from daemons.matching import replica as module
from daemons.matching.following import Following
from daemons.matching.replica import Replica
from daemons.matching.settled import Settled
from daemons.matching.surroundings import Failed, Stuck, Surroundings
from tests.harness.servers import bare_settings
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.daemons.matching.logs import log_of, trading

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


BATCHES = 20


class Sent:
    """A producer that remembers what it was given."""

    def __init__(self) -> None:
        self.rounds: list[list[Message]] = []

    async def send_many(self, messages: Sequence[Message]) -> list[int]:
        self.rounds.append(list(messages))
        return [0] * len(messages)

    def settled(self) -> list[tuple[int, int | None]]:
        """(first sequence, token) of every settlement sent."""
        found = []
        for message in (message for messages in self.rounds for message in messages):
            if message.topic.endswith("settlements"):
                settlement = SettlementJoiner().add(message.value, 0)
                assert settlement is not None
                found.append((settlement.first_sequence, message.token))
        return found


class Backlog:
    """A reader that has everything at once, and then nothing more."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def known_end(self) -> int:
        return 0

    async def poll(self, **_: object) -> list[Record]:
        if not self._records:
            await anyio.sleep_forever()
        found, self._records = self._records, []
        return found


class NoPool:
    """A database that nobody should ask, but for what was passed over: nothing."""

    @asynccontextmanager
    async def connection(self) -> AsyncIterator["NoPool"]:
        yield self

    async def execute(self, _query: object, _given: object = None) -> "NoPool":
        return self

    async def fetchone(self) -> tuple[bool]:
        return (False,)


class Stand:
    """A replica between a log and a producer, with `watermark` for what PostgreSQL would say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def nothing(*_: object) -> Any:
            raise AssertionError("nothing is missing, and nobody reports")

        self.sent = Sent()
        pool, producer = cast(Any, NoPool()), cast(Any, self.sent)  # As much of them as it needs.
        around = Surroundings(
            bare_settings(), pool, producer, nothing, lambda _number, _reason: None, nothing
        )
        self.replica = Replica(0, around)
        self.following = Following(Engine(0), self.replica._topics, skips=(), last_act=0)
        self.replica._following = self.following
        self.watermark = Settled(0, m.GENESIS_CHAIN, 0)

        async def look() -> Settled:
            return self.watermark

        monkeypatch.setattr(self.replica, "_look", look)

    async def consume(self, records: list[Record], within_s: float = 0.3) -> None:
        with anyio.move_on_after(within_s):
            await self.replica._consume(self.following, cast(Any, Backlog(records)))

    async def consume_with_an_order(self, records: list[Record]) -> None:
        """By a fresh engine in which order 1 stands already."""
        self.following = Following(Engine(0), self.replica._topics, skips=(), last_act=0)
        self.following.engine._orders[1] = cast(Any, None)  # Only its presence counts.
        await self.consume(records)

    @asynccontextmanager
    async def leading(self, token: int) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(self.replica.lead, Lease("matching", 0, token, "test"))
            await anyio.wait_all_tasks_blocked()
            yield
            group.cancel_scope.cancel()


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    return Stand(monkeypatch)


async def test_a_standby_applies_and_sends_nothing(stand: Stand) -> None:
    await stand.consume(log_of(trading(BATCHES)))
    assert stand.sent.rounds == []
    assert stand.following.engine.sequence == 1 + 2 * BATCHES


async def test_leading_begins_with_what_nobody_has_settled(stand: Stand) -> None:
    await stand.consume(log_of(trading(3)))
    second = stand.following.kept.all()[1]
    stand.watermark = Settled(second.last_sequence, second.chain, 0)
    async with stand.leading(9):
        assert stand.sent.settled() == [(4, 9), (6, 9)]
        last = stand.sent.rounds[-1]
        assert [(message.topic, message.token) for message in last] == [("exchange.orderbook", 9)]
    await stand.consume([])
    assert len(stand.sent.rounds) == 2


async def test_a_second_leadership_sends_under_its_own_token(stand: Stand) -> None:
    await stand.consume(log_of(trading(1)))
    for token in (3, 5):
        async with stand.leading(token):
            pass
    assert stand.sent.settled() == [(1, 3), (2, 3), (1, 5), (2, 5)]


async def test_a_backlog_is_published_slice_by_slice(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    async with stand.leading(1):
        stand.sent.rounds.clear()  # The books, at the start.
        await stand.consume(log_of(trading(BATCHES)))
    assert len(stand.sent.rounds) == BATCHES + 1
    assert [first for first, _ in stand.sent.settled()] == [1, *range(2, 2 * BATCHES + 1, 2)]


async def test_what_comes_again_is_published_again_by_the_leader_alone(stand: Stand) -> None:
    log = log_of(trading(2))
    await stand.consume(log)
    await stand.consume(log)
    assert stand.sent.rounds == []
    async with stand.leading(1):
        stand.sent.rounds.clear()
        await stand.consume(log[1:])
        assert stand.sent.settled() == [(2, 1), (4, 1)]


async def test_what_stands_before_a_broken_record_is_published(stand: Stand) -> None:
    async with stand.leading(1):
        with pytest.raises(Stuck) as caught:
            await stand.consume([*log_of(trading(BATCHES)), Record(99, b"\xff", 0, -1)])
        assert caught.value.where == "exchange.orders at offset 99: "
        assert len(stand.sent.settled()) == BATCHES + 1


async def test_a_command_that_a_fresh_engine_cannot_apply_either_stops_the_partition(stand: Stand) -> None:
    twice = [*trading(1), trading(1)[1]]  # The same order ids; the first of them still rests, let us say.
    with pytest.raises(Failed):
        await stand.consume_with_an_order(log_of(twice))
    with pytest.raises(Stuck, match="commands 2 to 3") as caught:
        await stand.consume_with_an_order(log_of(twice))
    assert caught.value.sequence == 2


async def test_what_kafka_lost_is_published_again_even_when_nothing_more_fits(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.005)
    monkeypatch.setattr(kept, "MOST_BYTES", 0)  # Full from the first batch on.
    async with stand.leading(1):
        await stand.consume(log_of(trading(1)))
        assert stand.sent.settled()[:4] == [(1, 1), (2, 1)] * 2
