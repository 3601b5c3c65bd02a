"""A digest tells two books apart by anything that matters later, and comes at its places alone."""

import pytest

from common.core import engine as engine_module
from common.core.engine import Engine
from common.core.messages import BookDigest, Side
from common.core.outward import book_digest
from tests.unit.common.core.test_engine import ALICE, BOB, Desk


def digest(desk: Desk) -> bytes:
    return book_digest(desk.engine._books[1])


def two() -> tuple[Desk, Desk]:
    """Two desks with the same history: a bid of 500 lots, of which 200 are filled."""
    desks = Desk(), Desk()
    for desk in desks:
        desk.buy(ALICE, 100, 500, client_order_id="mine")
        desk.sell(BOB, 100, 200)
    return desks


def test_the_same_history_gives_the_same_digest() -> None:
    one, other = two()
    assert digest(one) == digest(other)


def test_a_fill_that_one_did_not_see_shows() -> None:
    one, other = two()
    one.sell(BOB, 100, 1)
    other.sell(BOB, 101, 1)
    assert digest(one) != digest(other)


def test_the_priority_of_two_orders_shows() -> None:
    one, other = Desk(), Desk()
    for desk, users in ((one, (ALICE, BOB)), (other, (BOB, ALICE))):
        for user in users:
            desk.buy(user, 100, 500)
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [("client_order_id", "other"), ("left_lots", 299), ("held_atoms", 1), ("sequence", 77), ("fee_atoms", 9)],
)
def test_every_field_of_a_resting_order_shows(field: str, value: object) -> None:
    one, other = two()
    [order] = other.engine._orders.values()
    setattr(order, field, value)
    assert digest(one) != digest(other)


def test_digests_come_when_so_many_commands_have_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DIGEST_EVERY", 4)
    desk = Desk()  # Its market is command 1.
    found = [desk.do(desk.order(ALICE, Side.BUY, 100, 500)).settlement.digests for _ in range(3)]
    assert found == [[], [], [BookDigest(1, digest(desk))]]


def test_digests_come_less_often_while_much_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DIGEST_EVERY", 1)
    desk = Desk()
    count = sum(bool(desk.do(desk.order(ALICE, Side.BUY, 100, 500)).settlement.digests) for _ in range(40))
    assert 0 < count < 10


def test_a_restored_engine_takes_them_at_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DIGEST_EVERY", 4)
    ran, restored = two()
    engine = Engine(0)
    engine.restore(restored.engine.snapshot())
    restored.engine = engine
    order = ran.order(BOB, Side.SELL, 120, 10)
    assert ran.do(order).settlement == restored.do(order).settlement
