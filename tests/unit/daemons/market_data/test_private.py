"""What a snapshot already shows, and who hears of what."""

from collections.abc import Sequence

import anyio
import pytest

from common.core.errors import Unavailable
from common.core.messages import Market
from common.health import Health
from daemons.market_data.directory import Directory
from daemons.market_data.outbox import Frame, Outbox
from daemons.market_data.private import OPEN_S, PrivateDesk, in_snapshot, without_fills
from exchange.v1 import events_pb2, orders_pb2, types_pb2
from tests.harness.virtual_time import Backend, virtual_time
from tests.unit.daemons.market_data.samples import BTC, ETH

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Backend:
    return virtual_time(request.param)


class Source:
    """order-service, as far as it is asked here."""

    def __init__(self) -> None:
        self.live: list[orders_pb2.Order] = []
        self.filled: list[types_pb2.Fill] = []
        self.atoms = 0
        self.looked_up = 0
        self.away = False

    async def markets(self) -> list[Market]:
        return [BTC, ETH]

    async def live_orders(self, user_id: int) -> list[orders_pb2.Order]:
        found = list(self.live)
        await anyio.sleep(1)
        return found

    async def fills(self, user_id: int, limit: int) -> Sequence[types_pb2.Fill]:
        found = list(self.filled)
        await anyio.sleep(1)
        return found

    async def accounts(self, user_id: int) -> Sequence[types_pb2.Account]:
        self.looked_up += 1
        atoms = self.atoms
        await anyio.sleep(0.01)
        if self.away:
            raise Unavailable
        return [types_pb2.Account(asset_id=1, available_atoms=atoms)]


def update(order_id: int, filled: int, status: int, user_id: int = 1) -> events_pb2.UserOrderUpdate:
    state = events_pb2.OrderState(
        order_id=order_id,
        user_id=user_id,
        market_id=BTC.market_id,
        side=types_pb2.SIDE_BUY,
        status=types_pb2.OrderStatus.ValueType(status),
        filled_lots=filled,
    )
    return events_pb2.UserOrderUpdate(state=state)


def fill(trade_id: int, order_id: int) -> types_pb2.Fill:
    return types_pb2.Fill(
        trade_id=trade_id,
        order_id=order_id,
        market_id=BTC.market_id,
        side=types_pb2.SIDE_BUY,
        liquidity=types_pb2.LIQUIDITY_MAKER,
    )


def told(last: int, *changes: events_pb2.UserOrderUpdate) -> events_pb2.OrderUpdates:
    return events_pb2.OrderUpdates(partition=0, first_sequence=last, last_sequence=last, orders=changes)


async def desk(source: Source) -> PrivateDesk:
    directory = Directory(source, Health())
    async with anyio.create_task_group() as group:
        group.start_soon(directory.run)
        await directory.learn(BTC.market_id)
        group.cancel_scope.cancel()
    made = PrivateDesk(source, directory)
    made.open()
    return made


def taken(outbox: Outbox) -> list[Frame]:
    return [item for item in outbox.take(1 << 20) if isinstance(item, Frame)]


@pytest.mark.parametrize(
    ("status", "filled", "shown"),
    [(1, 0, True), (2, 0, True), (3, 4, True), (3, 5, True), (3, 6, False), (5, 5, False), (4, 9, False)],
)
async def test_a_snapshot_shows_what_is_as_old_or_older(status: int, filled: int, shown: bool) -> None:
    seen = {7: orders_pb2.Order(order_id=7, filled_lots=5, status=types_pb2.ORDER_STATUS_PARTIALLY_FILLED)}
    assert in_snapshot(update(7, filled, status), seen) is shown
    assert not in_snapshot(update(8, filled, status), seen)


async def test_fills_of_the_snapshot_are_not_told_again() -> None:
    change = update(7, 2, 3)
    change.fills.extend([fill(1, 7), fill(2, 7)])
    left = without_fills(change, {(BTC.market_id, 1, 7)})
    assert [each.trade_id for each in left.fills] == [2]
    source = Source()
    source.filled = [fill(1, 7)]
    private = await desk(source)
    outbox = Outbox()
    seat = private.seat("fills", 1, outbox)
    async with anyio.create_task_group() as group:
        group.start_soon(seat.start)
        await anyio.sleep(0.5)
        private.take(told(1, change))
    assert [(frame.snapshot, frame.sequence, frame.previous) for frame in taken(outbox)] == [
        (True, 1, 0),
        (False, 2, 1),
    ]


async def test_updates_of_others_and_repeats_are_not_told() -> None:
    private = await desk(Source())
    outbox = Outbox()
    seat = private.seat("orders", 1, outbox)
    await seat.start()
    private.take(told(5, update(7, 0, 2), update(8, 0, 2, user_id=2)))
    private.take(told(5, update(7, 0, 2)))
    private.take(told(4, update(7, 0, 2)))
    assert len(taken(outbox)) == 2
    seat.leave()
    seat.leave()
    private.take(told(6, update(7, 0, 5)))
    assert taken(outbox) == []


async def test_a_batch_in_parts_is_told_whole_and_once() -> None:
    private = await desk(Source())
    outbox = Outbox()
    seat = private.seat("orders", 1, outbox)
    await seat.start()
    taken(outbox)
    for _ in range(2):  # All parts come again after a crash of the settler.
        private.take(told(5, update(7, 0, 2), update(8, 0, 2)))
        private.take(told(5, update(9, 0, 2)))
    assert len(taken(outbox)) == 3
    seat.leave()


async def test_a_seat_that_is_left_while_it_starts_sends_nothing() -> None:
    private = await desk(Source())
    outbox = Outbox()
    seat = private.seat("orders", 1, outbox)
    async with anyio.create_task_group() as group:
        group.start_soon(seat.start)
        await anyio.sleep(0.5)
        seat.leave()
    assert taken(outbox) == []


async def test_many_settlements_make_few_look_ups_and_the_last_balance_is_told() -> None:
    source = Source()
    private = await desk(source)
    outbox = Outbox()
    await private.seat("balances", 1, outbox).start()
    async with anyio.create_task_group() as group:
        group.start_soon(private.run)
        for sequence in range(1, 101):
            source.atoms = sequence
            private.take(told(sequence, update(7, 0, 2)))
            await anyio.sleep(0.01)
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert source.looked_up <= 15
    last = taken(outbox)[-1]
    assert b'"0.000001"' in last.wire


async def test_a_look_up_that_fails_is_made_again() -> None:
    source = Source()
    private = await desk(source)
    outbox = Outbox()
    await private.seat("balances", 1, outbox).start()
    async with anyio.create_task_group() as group:
        group.start_soon(private.run)
        source.away, source.atoms = True, 5
        private.take(told(1, update(7, 0, 2)))
        await anyio.sleep(1)
        source.away = False
        await anyio.sleep(1)
        group.cancel_scope.cancel()
    assert [frame.snapshot for frame in taken(outbox)] == [True, False]


async def test_when_updates_may_be_lost_everybody_is_to_subscribe_again_once() -> None:
    source = Source()
    made = await desk(source)
    boxes = [Outbox(), Outbox()]
    seats = [made.seat(kind, 1, box) for kind, box in zip(("orders", "fills"), boxes, strict=True)]
    for seat in seats:
        await seat.start()
    made.start_over()
    assert [box.closed[0] if box.closed else None for box in boxes] == [1012, 1012]
    later = Outbox()
    await made.seat("orders", 1, later).start()
    made.start_over()  # Another partition of the same Kafka finds it out.
    assert later.closed is None
    await anyio.sleep(60)
    made.start_over()
    assert later.closed is not None


async def test_what_is_older_than_the_snapshot_is_not_told_after_it_either() -> None:
    """As when this process reads on from further back than PostgreSQL is."""
    source = Source()
    source.live = [
        orders_pb2.Order(
            order_id=7,
            market_id=BTC.market_id,
            side=types_pb2.SIDE_BUY,
            type=types_pb2.ORDER_TYPE_LIMIT,
            time_in_force=types_pb2.TIME_IN_FORCE_GTC,
            stp=types_pb2.SELF_TRADE_PREVENTION_CANCEL_TAKER,
            filled_lots=5,
            status=types_pb2.ORDER_STATUS_PARTIALLY_FILLED,
        )
    ]
    source.filled = [fill(1, 7)]
    made = await desk(source)
    boxes = {kind: Outbox() for kind in ("orders", "fills")}
    for kind, box in boxes.items():
        await made.seat(kind, 1, box).start()
        taken(box)
    older, newer, newest = (update(7, filled, 3) for filled in (2, 6, 8))
    older.fills.append(fill(1, 7))
    newer.fills.append(fill(2, 7))
    for sequence, change in enumerate((older, newer, newest), 1):
        made.take(told(sequence, change))
    assert len(taken(boxes["orders"])) == 2
    assert len(taken(boxes["fills"])) == 1


async def test_no_snapshot_is_made_before_every_partition_is_read() -> None:
    """A reader that opens after the snapshot begins at the end: what came between the two would be lost."""
    source = Source()
    private = PrivateDesk(source, (await desk(source)).directory)
    outbox = Outbox()
    seat = private.seat("orders", 1, outbox)
    async with anyio.create_task_group() as group:
        group.start_soon(seat.start)
        await anyio.sleep(OPEN_S / 2)
        assert taken(outbox) == []
        private.open()
    [snapshot] = taken(outbox)
    assert snapshot.snapshot
    private.take(told(5, update(7, 0, 5)))
    assert len(taken(outbox)) == 1


async def test_who_waits_for_kafka_too_long_is_told_and_who_left_is_forgotten() -> None:
    source = Source()
    private = PrivateDesk(source, (await desk(source)).directory)
    with pytest.raises(Unavailable, match="subscribe again"):
        await private.seat("orders", 1, Outbox()).start()
    gone = private.seat("orders", 1, Outbox())
    async with anyio.create_task_group() as group:
        group.start_soon(gone.start)
        await anyio.sleep(1)
        gone.leave()
        private.open()
    private.take(told(5, update(7, 0, 2)))
    assert private._seats == {}


async def test_what_is_told_directly_is_told_once_and_after_what_is_missing_before_it() -> None:
    private = await desk(Source())
    outbox = Outbox()
    await private.seat("orders", 1, outbox).start()
    taken(outbox)
    private.take(told(1, update(7, 0, 2)))
    assert private.take(told(2, update(7, 1, 3)), (1, 7))
    assert len(taken(outbox)) == 2
    assert private.take(told(2, update(7, 1, 3)))  # Kafka's, later.
    assert not private.take(told(4, update(7, 3, 3)), (3, 7))
    assert taken(outbox) == []
    assert not private.has_seen(told(4, update(7, 3, 3)))
    private.take(told(3, update(7, 2, 3)))
    filled = [b'"filled_quantity":"0.00002"', b'"filled_quantity":"0.00003"']
    assert [text in frame.wire for text, frame in zip(filled, taken(outbox), strict=True)] == [True, True]
    assert private.take(told(4, update(7, 3, 3)))
    assert taken(outbox) == []


async def test_one_that_cannot_be_shown_does_not_take_the_turn_of_those_behind_it() -> None:
    private = await desk(Source())
    outbox = Outbox()
    await private.seat("orders", 1, outbox).start()
    taken(outbox)
    private.take(told(1, update(7, 0, 2)))
    private.take(told(3, update(8, 0, 2)), (2, 7))
    bad = update(7, 0, 2)
    bad.state.reason = 99  # type: ignore[assignment]  # as no settler would
    with pytest.raises(ValueError, match="99"):
        private.take(told(2, bad))
    assert len(taken(outbox)) == 2
