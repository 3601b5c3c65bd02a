"""What the settler puts into one TX2: whole batches, bounded, and all that stands before a broken record."""

from hashlib import sha256

import pytest

from common import wire
from common.core import messages as m
from common.kafka_reader import Record
from daemons.order_service import settler
from daemons.order_service.settler import PartitionStopped, _rounds


def records(count: int, orders: int) -> list[Record]:
    found = []
    for number in range(1, count + 1):
        states = [
            m.OrderState(n, 4, 1, "", m.Side.SELL, m.OrderStatus.OPEN, m.Reason.NONE, 0, 0, 0, 5, 0, number)
            for n in range(orders)
        ]
        whole = m.Settlement(0, number, number, 8, bytes(32), bytes(32), 1, [], states)
        found += [Record(number, part, 7, number) for part in wire.settlement_parts(whole)]
    return found


def test_a_backlog_is_settled_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "TX2_ROWS", 25)
    joiner = wire.SettlementJoiner()
    rounds = list(_rounds(joiner, records(7, orders=10), 0))
    assert [len(each) for each in rounds] == [3, 3, 1]
    assert [one.offset for each in rounds for one in each] == [1, 2, 3, 4, 5, 6, 7]
    assert list(_rounds(joiner, [], 0)) == []


def test_one_huge_batch_goes_alone_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler, "TX2_ROWS", 25)
    [alone] = _rounds(wire.SettlementJoiner(), records(1, orders=1_000), 0)
    assert len(alone) == 1


def test_what_stands_before_a_broken_record_is_settled_first() -> None:
    rounds = _rounds(wire.SettlementJoiner(), [*records(2, orders=1), Record(3, b"\xff", 7, 3)], 0)
    assert len(next(rounds)) == 2
    with pytest.raises(PartitionStopped, match="offset 3"):
        next(rounds)


@pytest.mark.parametrize("half", [b"", b"\x08\x01", b"\xff"], ids=["empty", "half", "garbage"])
def test_a_record_that_an_operator_passed_over_is_passed_over_where_it_lies(half: bytes) -> None:
    first, last = records(2, orders=1)
    poison = Record(5, half, 7, 3)
    with pytest.raises(PartitionStopped, match="offset 5"):
        list(_rounds(wire.SettlementJoiner(), [poison], 0))
    passed = {(5, sha256(half).digest())}
    [deliveries] = _rounds(wire.SettlementJoiner(), [first, poison, last], 0, passed)
    assert [one.offset for one in deliveries] == [1, 2]
    for other in ({(4, sha256(half).digest())}, {(5, sha256(b"another").digest())}):
        with pytest.raises(PartitionStopped, match="offset 5"):
            list(_rounds(wire.SettlementJoiner(), [poison], 0, other))
