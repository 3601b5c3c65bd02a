"""What the replay makes of rows, without a database: the rows are made from a first run of the engine."""

from random import Random

import pytest

from common.core.engine import Engine
from common.core.messages import Batch, Noop, OrderState, Place, Settlement
from common.core.replay import (
    LEFT,
    MOST_DIFFERENCES,
    PLACED,
    TRADED,
    Differences,
    PartitionReplay,
    Row,
    compare_balances,
)
from common.wire import encode_settlement
from tests.property.flows import batches, flow_of


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

    def replay(self, *points: int) -> tuple[PartitionReplay, Differences]:
        differences = Differences()
        replay = PartitionReplay(0, encode_settlement, differences)
        for index, batch in enumerate(self.log):
            if index in points:
                replay.point()
            replay.step(batch, self.orders[index], self.trades[index], [])
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
        replay.step(kept.log[index], kept.orders[index], kept.trades[index], [])
    replay.step(kept.log[5], [], [], [])
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
    replay.step(more, [], [], [])
    assert replay.broken
    assert "placed once" in str(differences.first[0].found)


def test_a_skipped_order_was_given_its_hold_back(kept: Kept) -> None:
    """The operator's Noop stands where the order's Place stood; its row says so."""
    last = kept.log[-1]
    more = Batch(0, last.last_sequence + 1, last.time_us + 1, last.chain, bytes(31) + b"x", [Noop(77, "bad")])
    placed = (more.first_sequence, 77, *(0 for _ in PLACED[2:]))
    for ended, found in (((5, 8, 0, 0, 0, 0, 1), None), ((5, 8, 0, 0, 0, 3, 1), {"held_atoms": 3})):
        replay, differences = kept.replay()
        replay.step(more, [(*placed, *ended)], [], [])
        assert [one.found for one in differences.first] == ([] if found is None else [found])


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
    accounts = {(1, 1): (50, 20), (-1, 1): (30, 0), (2, 1): (0, 0)}
    compare_balances(differences, [replay], {(1, 1): 100}, accounts)
    assert differences.count == 0
    compare_balances(differences, [replay], {(1, 1): 100}, accounts | {(1, 1): (51, 19), (3, 1): (1, 0)})
    assert [(one.what, one.found) for one in differences.first] == [
        ("the balance of user 1, asset 1", {"available_atoms": 51, "held_atoms": 19}),
        ("the balance of user 3, asset 1", {"available_atoms": 1}),
    ]
