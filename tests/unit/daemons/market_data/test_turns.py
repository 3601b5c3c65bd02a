"""Order updates over two ways: each is told, once, in order, whatever is lost or late on the direct one."""

import random
from collections.abc import Sequence

from daemons.market_data.turns import MAX_HELD, Turns, place_of
from daemons.order_service.teller import Teller
from exchange.v1 import events_pb2, internal_pb2


def record(sequence: int, order_id: int = 1, *, commands: int = 1) -> events_pb2.OrderUpdates:
    order = events_pb2.UserOrderUpdate(state=events_pb2.OrderState(order_id=order_id, user_id=1, market_id=1))
    first = sequence - commands + 1
    return events_pb2.OrderUpdates(partition=3, first_sequence=first, last_sequence=sequence, orders=[order])


class Caught:
    """A line that keeps what it is given."""

    def __init__(self) -> None:
        self.told: list[internal_pb2.Told] = []

    def put(self, told: internal_pb2.Told) -> None:
        self.told.append(told)

    async def run(self) -> None:
        raise AssertionError


def sequences(due: Sequence[events_pb2.OrderUpdates]) -> list[int]:
    return [updates.last_sequence for updates in due]


def test_what_comes_directly_is_told_at_once_and_not_again() -> None:
    turns = Turns()
    assert sequences(turns.take(record(1))) == [1]
    assert sequences(turns.take(record(3), (1, 1))) == [3]  # The batch 2 touched no order.
    assert turns.take(record(3)) == []
    assert turns.take(record(3), (1, 1)) == []
    assert sequences(turns.take(record(4))) == [4]
    assert turns.take(record(4), (3, 1)) == []
    assert turns.seen(record(4))
    assert not turns.seen(record(5))


def test_a_hole_waits_for_kafka_which_frees_what_follows_it() -> None:
    turns = Turns()
    turns.take(record(1))
    assert turns.take(record(3), (2, 1)) == []
    assert turns.take(record(4), (3, 1)) == []
    assert turns.take(record(6), (5, 1)) == []  # 5 is missing too.
    assert not turns.seen(record(3))
    assert sequences(turns.take(record(2))) == [2, 3, 4]
    assert sequences(turns.take(record(5), (4, 1))) == [5, 6]
    assert [sequences(turns.take(record(number))) for number in range(1, 8)] == [[]] * 6 + [[7]]


def test_who_has_just_started_waits_for_the_first_one_of_kafka() -> None:
    turns = Turns()
    assert turns.take(record(8), (7, 1)) == []
    assert turns.take(record(9), (8, 1)) == []
    assert turns.take(record(9), (0, 0)) == []  # No settler says so.
    assert sequences(turns.take(record(8))) == [8, 9]


def test_the_parts_of_a_batch_have_a_turn_each() -> None:
    turns = Turns()
    turns.take(record(1))
    assert len(turns.take(record(2, order_id=5), (1, 1))) == 1
    assert turns.take(record(2, order_id=9), (2, 7)) == []
    assert len(turns.take(record(2, order_id=7), (2, 5))) == 2
    assert turns.take(record(2, order_id=7)) == []


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    turns = Turns()
    turns.take(record(1))
    last = MAX_HELD + 10
    for sequence in range(3, last + 1):
        turns.take(record(sequence), (sequence - 1, 1))
    told = [sequence for number in range(2, last + 1) for sequence in sequences(turns.take(record(number)))]
    assert told == list(range(2, last + 1))


def a_log(order: random.Random) -> list[events_pb2.OrderUpdates]:
    """Batches of one and more commands, some in parts, some that touched no order."""
    found: list[events_pb2.OrderUpdates] = []
    sequence = 0
    for _ in range(order.randint(1, 12)):
        commands = order.randint(1, 3)
        sequence += commands
        parts = order.choice((0, 1, 1, 1, 1, 2, 3))
        found += [record(sequence, order_id, commands=commands) for order_id in range(1, parts + 1)]
    return found or [record(sequence)]


def a_settler(order: random.Random, values: Sequence[bytes]) -> tuple[list[int], list[internal_pb2.Told]]:
    """What it publishes, as indices of the log, and what it tells directly.

    A settler works in whole batches. Now and then it dies, perhaps in the middle of one, and it or another
    begins anew at one of those before; and now and then a batch that is settled already is published again.
    """
    line = Caught()
    teller = Teller([line])  # type: ignore[list-item]  # it is as good as a Line here
    published: list[int] = []
    batches = batches_of(values)
    position = 0

    def publish(indices: Sequence[int]) -> None:
        published.extend(indices)
        teller.tell(3, [values[index] for index in indices])

    while position < len(batches):
        kind = order.random()
        if kind < 0.1:
            publish(batches[position][: order.randrange(len(batches[position]))])
            position = order.randint(0, position)
            teller.begin(3)
        elif kind < 0.2 and position > 0:
            publish(order.choice(batches[:position]))
        else:
            publish(batches[position])
            position += 1
    return published, line.told


def batches_of(values: Sequence[bytes]) -> list[list[int]]:
    """The log's indices, those of one batch together."""
    found: dict[int, list[int]] = {}
    for index, value in enumerate(values):
        found.setdefault(events_pb2.OrderUpdates.FromString(value).last_sequence, []).append(index)
    return list(found.values())


def test_every_interleaving_tells_all_once_and_in_order(seed: int) -> None:
    order = random.Random(seed)
    total = 0
    for _ in range(500):
        records = a_log(order)
        log = [place_of(updates) for updates in records]
        published, directly = a_settler(order, [updates.SerializeToString() for updates in records])
        first = order.randrange(len(log))  # Where this market-data began to read.
        kafka = published[published.index(first) :]
        total += len(directly)
        arriving = [told for told in directly if order.random() < 0.8]
        turns = Turns()
        told: list[int] = []
        while kafka or arriving:
            if not arriving or (kafka and order.random() < 0.5):
                due = turns.take(records[kafka.pop(0)])
            else:
                one = arriving.pop(0)
                updates = events_pb2.OrderUpdates.FromString(one.updates)
                due = turns.take(updates, (one.after_sequence, one.after_order_id))
            told += [log.index(place_of(updates)) for updates in due]
            assert told == list(range(first, first + len(told)))
        assert told[-1] == len(log) - 1
    assert total > 500  # Else nothing was tried here.
