"""The operator's acts: schema, markets, fees and halts, as commands of the partition's sequence."""

from dataclasses import replace

import anyio
import pytest

from common import admin
from common.core import errors
from common.core import messages as m
from common.core.ledger import fee_user_id
from common.migrate import PartitionsAreFixed, migrate
from daemons.local.prepare import default_markets
from daemons.order_service.requests import CancelAccepted, CancelOrder
from tests.integration.order_service.desk import USD, Desk, limit

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
COST = PRICE * LOTS * 10


async def market(desk: Desk, symbol: str = "BTC-USD") -> m.Market:
    return next(one for one, _ in await admin.list_markets(desk.connection) if one.symbol == symbol)


async def test_migrating_twice_at_once_applies_everything_once(database: str) -> None:
    applied: list[str] = []

    async def one() -> None:
        applied.extend(await migrate(database, 4))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(one)
    assert len(applied) == len(set(applied)) > 0
    assert await migrate(database, 4) == []


async def test_the_number_of_partitions_is_fixed(desk: Desk) -> None:
    for other in (1, 3, 5):
        with pytest.raises(PartitionsAreFixed, match="4 partitions"):
            await migrate(desk.url, other)
    assert await desk.rows("SELECT count(*), max(partition) FROM shards") == [(4, 3)]


async def test_a_market_is_created_once(desk: Desk) -> None:
    before = await desk.rows("SELECT count(*) FROM outbox")
    [btc, eth] = default_markets(4)
    assert not await admin.create_market(desk.connection, btc)
    for wrong in (replace(btc, lot_atoms=10_000), replace(btc, market_id=9), replace(eth, symbol="SOL-USD")):
        with pytest.raises(errors.Conflict):
            await admin.create_market(desk.connection, wrong)
    with pytest.raises(errors.InvalidMarket):
        await admin.create_market(
            desk.connection, replace(btc, market_id=9, symbol="X-USD", lot_atoms=1, tick_atoms=1)
        )
    assert await desk.rows("SELECT count(*) FROM outbox") == before


async def test_a_new_market_trades_when_its_command_is_settled(desk: Desk) -> None:
    asset = m.Asset(4, "SOL", 6)
    sol = m.Market(3, "SOL-USD", asset, default_markets(4)[0].quote, 2, 1_000_000, 1_000, 0, 5, 7)
    assert await admin.create_market(desk.connection, sol)
    desk.markets.fill([one for one, _ in await admin.list_markets(desk.connection)])
    buyer, seller = await desk.user(), await desk.user()
    await admin.deposit(desk.connection, seller, 4, 10**9, "sol")
    await desk.place(limit(buyer, m.Side.BUY, 100, 1_000, symbol="SOL-USD"))
    await desk.place(limit(seller, m.Side.SELL, 100, 1_000, symbol="SOL-USD"))
    await desk.run(2)
    notional = 100 * 1_000 * sol.atoms_per_tick_lot
    assert await desk.account(fee_user_id(2), USD) == (notional * 7 // 10_000, 0)
    assert await desk.rows(
        "SELECT next_trade_id, last_price_ticks FROM market_states WHERE market_id = 3"
    ) == [(2, 100)]
    await desk.check_money()


async def test_fees_change_at_the_commands_place_in_the_sequence(desk: Desk) -> None:
    buyer, seller = await desk.user(), await desk.user()
    await desk.place(limit(buyer, m.Side.BUY, PRICE, 2 * LOTS))
    await desk.place(limit(seller, m.Side.SELL, PRICE, LOTS))  # 20 bps
    await admin.set_market(desk.connection, "BTC-USD", taker_fee_bps=50)
    await desk.place(limit(seller, m.Side.SELL, PRICE, LOTS))  # 50 bps
    await desk.run(0)
    assert await desk.account(fee_user_id(0), USD) == (COST * 70 // 10_000, 0)
    assert (await market(desk)).taker_fee_bps == 50
    await desk.check_money()


async def test_a_halted_market_takes_cancels_and_opens_again(desk: Desk) -> None:
    user = await desk.user()
    order = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    await admin.set_market(desk.connection, "BTC-USD", status=m.MarketStatus.HALTED)
    # TX1 goes by the watermark; what it lets through meanwhile is ended by the engine.
    late = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    await desk.run(0)
    assert await desk.rows("SELECT status, reason FROM orders WHERE order_id = %s", late.order_id) == [
        (m.OrderStatus.REJECTED, m.Reason.MARKET_HALTED)
    ]
    refused, canceled = await desk.submit(
        limit(user, m.Side.BUY, PRICE, LOTS), CancelOrder(user, order.order_id)
    )
    assert isinstance(refused, errors.MarketHalted)
    assert isinstance(canceled, CancelAccepted)
    await admin.set_market(desk.connection, "BTC-USD", status=m.MarketStatus.ACTIVE)
    await desk.run(0)
    await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    await desk.run(0)
    assert await desk.account(user, USD) == (1_000_000 * 10**8 - COST, COST)
    await desk.check_money()


async def test_a_change_keeps_those_that_the_engine_has_not_seen_yet(desk: Desk) -> None:
    await admin.set_market(desk.connection, "BTC-USD", status=m.MarketStatus.HALTED)
    await admin.set_market(desk.connection, "BTC-USD", maker_fee_bps=3)
    await admin.set_market(desk.connection, "BTC-USD", taker_fee_bps=4)
    assert (await market(desk)).status is m.MarketStatus.ACTIVE  # At the watermark.
    await desk.run(0)
    now = await market(desk)
    assert (now.status, now.maker_fee_bps, now.taker_fee_bps) == (m.MarketStatus.HALTED, 3, 4)
    await admin.set_market(desk.connection, "BTC-USD", status=m.MarketStatus.ACTIVE)
    await desk.run(0)
    now = await market(desk)
    assert (now.status, now.maker_fee_bps, now.taker_fee_bps) == (m.MarketStatus.ACTIVE, 3, 4)


async def test_a_change_that_cannot_work_is_refused(desk: Desk) -> None:
    before = await desk.rows("SELECT partition, last_sequence FROM shards ORDER BY 1")
    for fee in (-1, 10_001):
        with pytest.raises(errors.InvalidMarket):
            await admin.set_market(desk.connection, "BTC-USD", taker_fee_bps=fee)
    with pytest.raises(errors.UnknownSymbol):
        await admin.set_market(desk.connection, "NO-SUCH", taker_fee_bps=1)
    assert await desk.rows("SELECT partition, last_sequence FROM shards ORDER BY 1") == before


async def test_a_deposit_happens_once_for_each_reference(desk: Desk) -> None:
    user = await desk.user(usd=0)
    assert await admin.deposit(desk.connection, user, USD, 5, "wire 1")
    assert not await admin.deposit(desk.connection, user, USD, 5, "wire 1")
    assert await admin.deposit(desk.connection, user, USD, 5, "wire 2")
    assert await desk.account(user, USD) == (10, 0)
    await desk.check_money()


async def test_no_more_of_an_asset_than_one_account_can_hold(desk: Desk) -> None:
    """Else a trade could overflow the receiver's account, and TX2 would stop the partition."""
    buyer, seller = await desk.user(usd=0), await desk.user(usd=0)
    most = 2**63 - 1
    assert await admin.deposit(desk.connection, buyer, USD, most - 5, "nearly all")
    with pytest.raises(errors.InvalidQuantity):
        await admin.deposit(desk.connection, seller, USD, 6, "too much")
    with pytest.raises(errors.InvalidQuantity):
        await admin.deposit(desk.connection, seller, USD, most, "far too much")
    assert await admin.deposit(desk.connection, seller, USD, 5, "the rest")
    await desk.place(limit(seller, m.Side.SELL, 10**12, 900_000))
    await desk.place(limit(buyer, m.Side.BUY, 10**12, 900_000))
    await desk.run(0)
    await desk.check_money()
