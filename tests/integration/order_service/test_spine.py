"""TX1 -> engine -> TX2 on a real PostgreSQL: what is held, what is settled, and that it happens once."""

import pytest

from common.core import errors
from common.core import messages as m
from common.core.ledger import fee_user_id
from common.stops import SETTLEMENT
from daemons.order_service.requests import Accepted, CancelAccepted, CancelAllOrders, Canceling, CancelOrder
from daemons.order_service.settlement import CannotSettle
from tests.integration.order_service.desk import BTC, UNIT, USD, Desk, limit

pytestmark = pytest.mark.anyio

PRICE = 5_000_000  # 50,000.00 USD
LOTS = 1_000  # 0.01 BTC; at PRICE 500 USD
COST = PRICE * LOTS * 10


async def test_an_order_holds_and_a_cancel_gives_back(desk: Desk) -> None:
    user = await desk.user()
    order = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    assert await desk.account(user, USD) == (1_000_000 * UNIT - COST, COST)
    await desk.run(0)
    [cancel] = await desk.submit(CancelOrder(user, order.order_id))
    assert cancel == CancelAccepted(order.order_id, order.sequence + 1)
    await desk.run(0)
    assert await desk.account(user, USD) == (1_000_000 * UNIT, 0)
    [again] = await desk.submit(CancelOrder(user, order.order_id))
    assert isinstance(again, errors.OrderNotLive)
    await desk.check_money()


async def test_a_trade_moves_both_assets_and_the_fees(desk: Desk) -> None:
    buyer, seller = await desk.user(), await desk.user()
    await desk.place(limit(buyer, m.Side.BUY, PRICE, LOTS))
    await desk.place(limit(seller, m.Side.SELL, PRICE - 100, LOTS))
    await desk.run(0)
    base = LOTS * 1_000
    maker_fee, taker_fee = base * 10 // 10_000, COST * 20 // 10_000
    assert await desk.account(buyer, BTC) == (100 * UNIT + base - maker_fee, 0)
    assert await desk.account(seller, USD) == (1_000_000 * UNIT + COST - taker_fee, 0)
    assert await desk.account(fee_user_id(0), BTC) == (maker_fee, 0)
    assert await desk.account(fee_user_id(0), USD) == (taker_fee, 0)
    await desk.check_money()


async def test_one_poor_order_is_refused_alone(desk: Desk) -> None:
    rich, poor = await desk.user(), await desk.user(usd=600)
    answers = await desk.submit(
        limit(poor, m.Side.BUY, PRICE, LOTS),
        limit(poor, m.Side.BUY, PRICE, LOTS),
        limit(rich, m.Side.BUY, PRICE, LOTS, symbol="NO-SUCH"),
        limit(rich, m.Side.BUY, PRICE, LOTS),
    )
    assert [type(answer) for answer in answers] == [
        Accepted,
        errors.InsufficientFunds,
        errors.UnknownSymbol,
        Accepted,
    ]
    await desk.run(0)
    await desk.check_money()


async def test_the_same_client_order_id_is_the_same_order_for_ever(desk: Desk) -> None:
    user, other = await desk.user(), await desk.user()
    order = limit(user, m.Side.BUY, PRICE, LOTS, client="mine")
    first, twin = await desk.submit(order, order)
    assert isinstance(first, Accepted)
    assert isinstance(twin, Accepted)
    assert (twin.order_id, twin.sequence, twin.repeated) == (first.order_id, first.sequence, True)
    again, changed, foreign = await desk.submit(
        order,
        limit(user, m.Side.BUY, PRICE, LOTS + 1, client="mine"),
        limit(other, m.Side.BUY, PRICE, LOTS, client="mine"),
    )
    assert again == Accepted(
        first.order_id, "mine", "BTC-USD", first.sequence, first.created_us, repeated=True
    )
    assert isinstance(changed, errors.DuplicateClientOrderId)
    assert isinstance(foreign, Accepted)
    assert await desk.account(user, USD) == (1_000_000 * UNIT - COST, COST)


async def test_large_batches_are_copied_and_cancel_all_ends_them(desk: Desk) -> None:
    user = await desk.user()
    answers = await desk.submit(
        *(limit(user, m.Side.BUY, 100_000 + n, LOTS) for n in range(100)),
        *(limit(user, m.Side.SELL, 200_000 + n, LOTS, symbol="ETH-USD") for n in range(100)),
    )
    sequences = [answer.sequence for answer in answers[:100] if isinstance(answer, Accepted)]
    assert sequences == list(range(sequences[0], sequences[0] + 100))
    for partition in (0, 1):
        await desk.run(partition)
    assert await desk.submit(CancelAllOrders(user, "ETH-USD")) == [Canceling(100)]
    assert await desk.submit(CancelAllOrders(user, "")) == [Canceling(200)]
    for partition in (0, 1):
        await desk.run(partition)
    assert await desk.account(user, USD) == (1_000_000 * UNIT, 0)
    assert await desk.submit(CancelAllOrders(user, "")) == [Canceling(0)]
    await desk.check_money()


async def test_a_foreign_order_cannot_be_seen_or_canceled(desk: Desk) -> None:
    user, other = await desk.user(), await desk.user()
    order = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    [answer] = await desk.submit(CancelOrder(other, order.order_id))
    assert isinstance(answer, errors.OrderNotFound)


async def test_a_settlement_settles_once_whatever_is_delivered(desk: Desk) -> None:
    buyer, seller = await desk.user(), await desk.user()
    await desk.place(limit(buyer, m.Side.BUY, PRICE, LOTS))
    await desk.place(limit(seller, m.Side.SELL, PRICE, LOTS))
    one, two = await desk.match(0)
    assert (await desk.settle(0, [two])).gap
    assert [b.first_sequence for b in (await desk.settle(0, [one, one, two, one, two])).told] == [
        one.settlement.first_sequence,
        one.settlement.first_sequence,
        two.settlement.first_sequence,
        one.settlement.first_sequence,
        two.settlement.first_sequence,
    ]
    before = await desk.account(buyer, BTC)
    outcome = await desk.settle(0, [one, two])
    assert outcome.fresh == []
    assert len(outcome.told) == 2
    assert await desk.account(buyer, BTC) == before
    await desk.check_money()


async def test_a_stale_token_and_a_fork_are_refused(desk: Desk) -> None:
    user = await desk.user()
    await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    [delivery] = await desk.match(0)
    delivery.token -= 1
    outcome = await desk.settle(0, [delivery])
    assert (outcome.told, outcome.fresh) == ([], [])
    delivery.token += 1
    chain, delivery.settlement.previous_chain = delivery.settlement.previous_chain, bytes(32)
    assert (await desk.settle(0, [delivery])).fork
    delivery.settlement.previous_chain = chain
    assert (await desk.settle(0, [delivery])).fresh == [delivery]


async def _everything(desk: Desk) -> list[list[tuple[int, ...]]]:
    """What TX2 writes."""
    tables = ("accounts", "orders", "trades", "ledger", "market_states", "watermarks")
    return [await desk.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def test_a_settlement_that_contradicts_the_holds_changes_nothing(desk: Desk) -> None:
    buyer, seller = await desk.user(), await desk.user()
    await desk.place(limit(buyer, m.Side.BUY, PRICE, 2 * LOTS))
    await desk.place(limit(seller, m.Side.SELL, PRICE, LOTS))
    good, bad = await desk.match(0)
    before = await _everything(desk)
    [trade], [maker, taker] = bad.settlement.trades, bad.settlement.orders
    for broken, name, value in (
        (maker, "held_atoms", maker.held_atoms + 1),
        (maker, "released_atoms", 1),
        (taker, "order_id", 1),
        (trade, "qty_lots", trade.qty_lots + 1),
        (trade, "price_ticks", trade.price_ticks - 1),
    ):
        right = getattr(broken, name)
        setattr(broken, name, value)
        with pytest.raises(CannotSettle):
            await desk.settle(0, [good, bad])
        await desk.connection.rollback()
        setattr(broken, name, right)
        assert await _everything(desk) == before
    assert (await desk.settle(0, [good, bad])).fresh == [good, bad]
    await desk.check_money()


async def test_only_the_settler_with_the_lease_settles(desk: Desk) -> None:
    user = await desk.user()
    await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    deliveries = await desk.match(0)
    await desk.rows(
        "UPDATE partition_leader_locks SET fencing_token = 8 WHERE service = %s RETURNING 1", SETTLEMENT
    )
    outcome = await desk.settle(0, deliveries)
    assert (outcome.lease_lost, outcome.told, outcome.fresh) == (True, [], [])
    await desk.rows(
        "UPDATE partition_leader_locks SET fencing_token = 7 WHERE service = %s RETURNING 1", SETTLEMENT
    )
    assert (await desk.settle(0, deliveries)).fresh == deliveries
