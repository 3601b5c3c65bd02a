"""Telling market-data directly: in order, bounded, and nobody waits for one that is away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from common.core.errors import Unavailable
from daemons.order_service.teller import AWAY_S, CALL_S, MAX_WAITING, Line, Teller, teller
from exchange.v1 import events_pb2, internal_pb2
from tests.harness.virtual_time import Backend, virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


def value(sequence: int, client_order_id: str = "", order_id: int = 1) -> bytes:
    state = events_pb2.OrderState(order_id=order_id, client_order_id=client_order_id)
    order = events_pb2.UserOrderUpdate(state=state)
    return events_pb2.OrderUpdates(
        first_sequence=sequence, last_sequence=sequence, orders=[order]
    ).SerializeToString()


class MarketData:
    """Keeps what it is told; each call takes a while, fails, or never ends."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, int]]] = []  # (sequence, sequence before it)
        self.away = False
        self.hangs = False

    async def tell(self, request: internal_pb2.TellRequest) -> None:
        if self.hangs:
            await anyio.sleep_forever()
        if self.away:
            raise Unavailable
        await anyio.sleep(0.01)
        self.calls.append(
            [
                (events_pb2.OrderUpdates.FromString(told.updates).last_sequence, told.after_sequence)
                for told in request.told
            ]
        )


@asynccontextmanager
async def telling(*markets: MarketData) -> AsyncIterator[Teller]:
    made = Teller([Line(str(number), market.tell) for number, market in enumerate(markets)])
    async with anyio.create_task_group() as group:
        group.start_soon(made.run)
        yield made
        group.cancel_scope.cancel()


async def test_each_record_names_the_one_before_it_and_the_first_is_left_to_kafka() -> None:
    one, other = MarketData(), MarketData()
    async with telling(one, other) as made:
        for sequence in (3, 4, 5):
            made.tell(0, [value(sequence)])
            await anyio.sleep(1)
        made.tell(0, [value(4), value(5)])  # Published again.
        made.tell(1, [value(6)])
        made.begin(0)
        made.tell(0, [value(6)])
        made.tell(0, [value(7)])
        await anyio.sleep(1)
    assert one.calls == other.calls == [[(4, 3)], [(5, 4)], [(7, 6)]]


async def test_what_does_not_follow_what_was_told_is_left_to_kafka() -> None:
    market = MarketData()
    async with telling(market) as made:
        # 5 touched no order, or was told by another; the first is one that was settled long ago.
        made.tell(0, [value(1), value(4), value(6), value(7)])
        await anyio.sleep(1)
    assert market.calls == [[(7, 6)]]


async def test_the_parts_of_a_batch_follow_each_other() -> None:
    market = MarketData()
    async with telling(market) as made:
        made.tell(0, [value(1), value(2, order_id=1), value(2, order_id=4), value(3)])
        await anyio.sleep(1)
    assert market.calls == [[(2, 1), (2, 2), (3, 2)]]


async def test_what_comes_while_a_call_is_under_way_shares_the_next_one() -> None:
    market = MarketData()
    async with telling(market) as made:
        for sequence in range(1, 8):
            made.tell(0, [value(sequence)])
            await anyio.sleep(0.004)
        await anyio.sleep(1)
    assert [pair for call in market.calls for pair in call] == [
        (number + 1, number) for number in range(1, 7)
    ]
    assert len(market.calls) < 6


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_one_that_is_away_loses_what_it_missed_and_the_other_does_not_notice(how: str) -> None:
    bad, good = MarketData(), MarketData()
    setattr(bad, how, True)
    async with telling(bad, good) as made:
        for sequence in range(1, 5):
            made.tell(0, [value(sequence)])
        await anyio.sleep(CALL_S + AWAY_S / 2)
        setattr(bad, how, False)
        made.tell(0, [value(5)])  # Too soon: it is not tried again yet.
        await anyio.sleep(CALL_S + AWAY_S)
        assert bad.calls == ([[(5, 4)]] if how == "away" else [])
        made.tell(0, [value(6)])
        await anyio.sleep(1)
    assert bad.calls[-1] == [(6, 5)]
    assert [pair[0] for call in good.calls for pair in call] == [2, 3, 4, 5, 6]


async def test_a_line_holds_no_more_than_its_bounds() -> None:
    market = MarketData()
    async with telling(market) as made:
        for sequence in range(MAX_WAITING + 100):
            made.tell(0, [value(sequence)])
        await anyio.sleep(10)
        made.tell(0, [value(sequence) for sequence in range(2_000, 2_010)])
        await anyio.sleep(1)
    told = [pair[0] for call in market.calls for pair in call]
    assert told == [*range(1, MAX_WAITING + 1), *range(2_001, 2_010)]


async def test_large_records_are_bounded_by_their_bytes() -> None:
    market = MarketData()
    large = "x" * (1 << 20)
    async with telling(market) as made:
        for sequence in range(1, 12):
            made.tell(0, [value(sequence, large)])
        await anyio.sleep(1)
    assert market.calls == [[(2, 1)], [(3, 2)], [(4, 3)]]


async def test_without_an_address_nothing_is_told() -> None:
    made = Teller([])
    made.tell(0, [b"not even looked at"])
    async with teller("") as none:
        with anyio.fail_after(1):
            await none.run()
