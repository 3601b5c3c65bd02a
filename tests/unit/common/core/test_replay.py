"""What the replay makes of rows, without a database: the rows are made from a first run of the engine."""

from dataclasses import replace
from random import Random

import pytest

from common.core.differences import MOST_DIFFERENCES, Differences, Row
from common.core.engine import Engine
from common.core.messages import (
    Batch,
    OrderState,
    OrderStatus,
    OrderType,
    Place,
    Reason,
    SelfTradePrevention,
    Settlement,
    Side,
    TimeInForce,
)
from common.core.replay import (
    LEFT,
    PLACED,
    TRADED,
    PartitionReplay,
    compare_balances,
)
from common.core.sequencing import with_skips
from common.wire import encode_settlement
from tests.property.flows import batches, flow_of

_STP = SelfTradePrevention.CANCEL_TAKER
# No order of the flow has this id: it counts its own from 1.
_SKIPPED_ID = 1 << 40
_SKIPPED = OrderState(
    _SKIPPED_ID, 1, 1, "", Side.BUY, OrderStatus.CANCELED, Reason.OPERATOR_SKIP, 0, 0, 0, 0, 105, 0
)


class Kept:
    """What TX1 and TX2 would have left behind of a flow."""

    def __init__(self, log: list[Batch]) -> None:
        self.log = log
        self.engine = Engine(0)
        self.settlements = [self.engine.apply(batch).settlement for batch in log]
        last: dict[int, tuple[OrderState, int]] = {}
        for settlement in self.settlements:
            last |= {state.order_id: (state, settlement.time_us) for state in settlement.orders}
        self.orders = [
            [_order_row(batch, index, *last[command.order_id])
             for index, command in enumerate(batch.commands) if isinstance(command, Place)]
            for batch in log
        ]  # fmt: skip
        self.trades = [_trade_rows(settlement) for settlement in self.settlements]
        self.digests: list[list[Row]] = [
            [(one.last_sequence, each.market_id, each.digest) for each in one.digests]
            for one in self.settlements
        ]

    def replay(self, *points: int) -> tuple[PartitionReplay, Differences]:
        differences = Differences()
        replay = PartitionReplay(0, encode_settlement, differences)
        for index, batch in enumerate(self.log):
            if index in points:
                replay.point()
            replay.step(batch, self.orders[index], self.trades[index], [], self.digests[index])
        return replay, differences


def _order_row(batch: Batch, index: int, state: OrderState, time_us: int) -> Row:
    place = batch.commands[index]
    values = {name: getattr(place, name, None) for name in PLACED}
    values |= {"sequence": batch.first_sequence + index, "created_us": batch.time_us}
    left = {name: getattr(state, name, None) for name in LEFT} | {"updated_us": time_us}
    return (*values.values(), *left.values())


def _trade_rows(settlement: Settlement) -> list[Row]:
    return [
        tuple(settlement.time_us if name == "time_us" else getattr(trade, name) for name in TRADED)
        for trade in settlement.trades
    ]


@pytest.fixture
def kept(seed: int) -> Kept:
    return Kept(batches(flow_of(Random(seed), 300), [1, 4, 9]))


def test_what_the_engine_did_it_does_again_from_any_point(kept: Kept) -> None:
    replay, differences = kept.replay(*range(0, len(kept.log), 7))
    assert (differences.count, replay.broken) == (0, False)
    assert replay.engine.snapshot() == kept.engine.snapshot()
    assert replay.orders == sum(map(len, kept.orders))
    assert replay.trades == sum(map(len, kept.trades)) > 0


def test_all_differences_are_counted_and_the_first_are_kept(kept: Kept) -> None:
    kept.orders = [[] for _ in kept.log]
    replay, differences = kept.replay()
    assert differences.count == replay.orders > MOST_DIFFERENCES == len(differences.first)
    assert differences.first[0].what == "order 1"
    assert differences.first[0].found is None


def test_a_batch_that_does_not_follow_breaks_off(kept: Kept) -> None:
    del kept.log[5]
    differences = Differences()
    replay = PartitionReplay(0, encode_settlement, differences)
    for index in range(5):
        replay.step(kept.log[index], kept.orders[index], kept.trades[index], [], kept.digests[index])
    replay.step(kept.log[5], [], [], [], [])
    assert replay.broken
    assert differences.first[0].found == {"cannot be applied": f"gap after {kept.log[4].last_sequence}"}


def test_a_batch_that_the_engine_cannot_take_breaks_off(kept: Kept) -> None:
    """An order placed twice, which no TX1 would write."""
    live = kept.engine.snapshot().orders[0]
    [twice] = [
        command
        for batch in kept.log
        for command in batch.commands
        if isinstance(command, Place) and command.order_id == live.order_id
    ]
    last = kept.log[-1]
    more = Batch(0, last.last_sequence + 1, last.time_us + 1, last.chain, bytes(31) + b"x", [twice])
    replay, differences = kept.replay()
    replay.step(more, [], [], [], [])
    assert replay.broken
    assert "placed once" in str(differences.first[0].found)


def test_a_skipped_order_was_given_its_hold_back(kept: Kept) -> None:
    """The skip stands beside the log: without it, the engine would have let the order in."""
    last = kept.log[-1]
    place = Place(_SKIPPED_ID, 1, 1, Side.BUY, OrderType.LIMIT, TimeInForce.GTC, False, _STP, 5, 1, 0, 105)
    more = Batch(0, last.last_sequence + 1, last.time_us + 1, last.chain, bytes(31) + b"x", [place])
    skipped = with_skips(more, {more.first_sequence})
    for ended, found in (((5, 8, 0, 0, 0, 0), None), ((5, 8, 0, 0, 0, 3), {"held_atoms": 3})):
        state = replace(_SKIPPED, status=OrderStatus(ended[0]), held_atoms=ended[-1])
        row = _order_row(more, 0, state, more.time_us)
        replay, differences = kept.replay()
        replay.step(skipped, [row], [], [], [])
        assert [one.found for one in differences.first] == ([] if found is None else [found])
        assert _SKIPPED_ID not in {order.order_id for order in replay.engine.snapshot().orders}


@pytest.fixture
def digested(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> Kept:
    monkeypatch.setattr("common.core.engine.DIGEST_EVERY", 40)
    again = Kept(kept.log)
    assert sum(map(bool, again.digests)) > 2
    return again


def test_the_digests_of_the_books_come_out_the_same(digested: Kept) -> None:
    replay, differences = digested.replay(0, 9)
    assert differences.count == 0
    assert replay.digests == sum(map(len, digested.digests))


def test_another_digest_is_named(digested: Kept) -> None:
    at = next(index for index, rows in enumerate(digested.digests) if rows)
    sequence, market_id, digest = digested.digests[at][0]
    assert isinstance(digest, bytes)
    digested.digests[at][0] = (sequence, market_id, bytes(32))
    _, differences = digested.replay()
    assert [(one.what, one.expected, one.found) for one in differences.first] == [
        (f"the digest of market {market_id}'s book", {"digest": digest}, {"digest": bytes(32)})
    ]


def test_digests_may_be_missing_before_the_first_and_not_after_it(digested: Kept) -> None:
    first, *_, last = [index for index, rows in enumerate(digested.digests) if rows]
    digested.digests[first] = []
    assert digested.replay()[1].count == 0
    digested.digests[last].pop()
    _, differences = digested.replay()
    assert [one.found for one in differences.first] == [None]


def test_a_digest_where_no_engine_makes_one_is_named(digested: Kept) -> None:
    at = next(index for index, rows in enumerate(digested.digests) if not rows)
    digested.digests[at] = [(digested.log[at].last_sequence, 1, bytes(32))]
    _, differences = digested.replay()
    assert "which no engine makes here" in differences.first[0].what


def test_what_the_restored_state_lacks_is_named(kept: Kept) -> None:
    replay, differences = kept.replay()
    database = kept.engine.snapshot()
    lost = database.orders.pop()
    database.states[0].next_trade_id += 1
    replay.finish(database)
    named = {one.what for one in differences.first if "restored from the database" in one.what}
    assert named == {
        f"the state restored from the database: live order {lost.order_id}",
        f"the state restored from the database: state of market {database.states[0].market_id}",
    }


def test_a_balance_is_what_came_in_and_what_moved_less_what_is_held() -> None:
    differences = Differences()
    replay = PartitionReplay(0, encode_settlement, differences)
    replay.moved, replay.held = {(1, 1): -30, (-1, 1): 30}, {(1, 1): 20}
    deposits, pending = {(1, 1): 107, (4, 1): 5}, {(1, 1): 7, (4, 1): 5}
    accounts = {(1, 1): (50, 27), (-1, 1): (30, 0), (2, 1): (0, 0), (4, 1): (0, 5)}
    compare_balances(differences, [replay], deposits, pending, accounts)
    assert differences.count == 0
    changed = accounts | {(1, 1): (51, 26), (3, 1): (1, 0)}
    compare_balances(differences, [replay], deposits, pending, changed)
    assert [(one.what, one.found) for one in differences.first] == [
        ("the balance of user 1, asset 1", {"available_atoms": 51, "held_atoms": 26}),
        ("the balance of user 3, asset 1", {"available_atoms": 1}),
    ]
