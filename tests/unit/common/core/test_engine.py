"""Each rule of the engine by an example; the property tests cover their meetings."""

from dataclasses import replace
from typing import Any

import pytest

from common.core.engine import ENGINE_VERSION, PAUSE_COMMANDS, PAUSE_ORDERS, Engine
from common.core.messages import (
    GENESIS_CHAIN,
    Applied,
    Asset,
    Batch,
    Cancel,
    CancelAll,
    Command,
    Market,
    MarketStatus,
    Noop,
    OrderState,
    OrderStatus,
    OrderType,
    Place,
    Reason,
    SelfTradePrevention,
    SetMarket,
    Side,
    Skipped,
    TimeInForce,
)

# One lot is 1,000 base atoms and costs 10 quote atoms a tick.
MARKET = Market(1, "BTC-USD", Asset(2, "BTC", 8), Asset(1, "USD", 8), 0, 1_000_000, 1_000, 10**8, 10, 20)
ALICE, BOB, CAROL = 1, 2, 3
IOC, FOK = {"time_in_force": TimeInForce.IOC}, {"time_in_force": TimeInForce.FOK}
AT_MARKET: dict[str, Any] = {"type": OrderType.MARKET} | IOC


class Desk:
    """An engine with one market, and orders numbered as they come."""

    def __init__(self) -> None:
        self.engine = Engine(0)
        self.last_id = 0
        self.do(SetMarket(MARKET))

    def do(self, *commands: Command | Skipped) -> Applied:
        first = self.engine.sequence + 1
        chain = bytes([first % 256]) * 32
        return self.engine.apply(Batch(0, first, first * 1_000, self.engine.chain, chain, list(commands)))

    def order(self, user_id: int, side: Side, price_ticks: int, lots: int, **other: Any) -> Place:
        self.last_id += 1
        hold_atoms = lots * price_ticks * 10 if side is Side.BUY else lots * 1_000
        order = Place(
            self.last_id, user_id, 1, side, OrderType.LIMIT, TimeInForce.GTC, False,
            SelfTradePrevention.CANCEL_TAKER, price_ticks, lots, 0, hold_atoms,
        )  # fmt: skip
        return replace(order, **other)

    def buy(self, user_id: int, price_ticks: int, lots: int, **other: Any) -> OrderState:
        return self._place(self.order(user_id, Side.BUY, price_ticks, lots, **other))

    def sell(self, user_id: int, price_ticks: int, lots: int, **other: Any) -> OrderState:
        return self._place(self.order(user_id, Side.SELL, price_ticks, lots, **other))

    def _place(self, order: Place) -> OrderState:
        states = self.do(order).settlement.orders
        return next(state for state in states if state.order_id == order.order_id)

    def book(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        (book,) = self.engine.books()
        return book.bids, book.asks


@pytest.fixture
def desk() -> Desk:
    return Desk()


def ending(state: OrderState) -> tuple[OrderStatus, Reason, int]:
    return state.status, state.reason, state.filled_lots


def test_a_limit_order_rests_and_holds(desk: Desk) -> None:
    state = desk.buy(ALICE, 100, 5)
    assert ending(state) == (OrderStatus.OPEN, Reason.NONE, 0)
    assert (state.held_atoms, state.released_atoms) == (5_000, 0)
    assert desk.book() == ([(100, 5)], [])


def test_a_taker_gets_the_makers_price_and_the_difference_back(desk: Desk) -> None:
    desk.sell(ALICE, 100, 5)
    order = desk.order(BOB, Side.BUY, 110, 8)
    settlement = desk.do(order).settlement
    (trade,) = settlement.trades
    assert (trade.trade_id, trade.price_ticks, trade.qty_lots, trade.taker_side) == (1, 100, 5, Side.BUY)
    assert (trade.maker_fee_atoms, trade.taker_fee_atoms) == (5, 10)  # 10 bps of 5,000, 20 bps of 5,000
    maker, taker = settlement.orders
    assert ending(maker) == (OrderStatus.FILLED, Reason.NONE, 5)
    assert ending(taker) == (OrderStatus.PARTIALLY_FILLED, Reason.NONE, 5)
    assert (taker.held_atoms, taker.released_atoms) == (3 * 1_100, 5 * 100)
    (market,) = settlement.markets
    assert (market.next_trade_id, market.last_price_ticks) == (2, 100)


def test_price_goes_before_time_and_time_before_size(desk: Desk) -> None:
    desk.sell(ALICE, 101, 1)
    desk.sell(BOB, 100, 1)
    desk.sell(ALICE, 100, 50)
    settlement = desk.do(desk.order(CAROL, Side.BUY, 101, 52)).settlement
    assert [trade.maker_order_id for trade in settlement.trades] == [2, 3, 1]


def test_ioc_takes_what_there_is(desk: Desk) -> None:
    desk.sell(ALICE, 100, 5)
    state = desk.buy(BOB, 100, 8, **IOC)
    assert ending(state) == (OrderStatus.EXPIRED, Reason.UNFILLED_REMAINDER, 5)
    assert (state.held_atoms, state.released_atoms) == (0, 3_000)


def test_fok_takes_all_or_nothing(desk: Desk) -> None:
    desk.sell(ALICE, 100, 5)
    desk.sell(ALICE, 101, 5)
    state = desk.buy(BOB, 100, 6, **FOK)
    assert ending(state) == (OrderStatus.EXPIRED, Reason.FOK_NOT_FILLABLE, 0)
    assert state.released_atoms == 6_000
    assert desk.book() == ([], [(100, 5), (101, 5)])
    assert ending(desk.buy(BOB, 101, 6, **FOK)) == (OrderStatus.FILLED, Reason.NONE, 6)


def test_post_only_never_takes(desk: Desk) -> None:
    desk.sell(ALICE, 100, 5)
    state = desk.buy(BOB, 100, 1, post_only=True)
    assert ending(state) == (OrderStatus.REJECTED, Reason.POST_ONLY_WOULD_CROSS, 0)
    assert state.released_atoms == 1_000
    assert desk.buy(BOB, 99, 1, post_only=True).status is OrderStatus.OPEN


def test_a_market_buy_by_quantity_ends_with_its_hold(desk: Desk) -> None:
    desk.sell(ALICE, 100, 2)
    desk.sell(ALICE, 200, 2)
    state = desk.buy(BOB, 0, 4, **AT_MARKET, hold_atoms=4_200)
    assert ending(state) == (OrderStatus.CANCELED, Reason.HOLD_EXHAUSTED, 3)
    assert (state.filled_quote_atoms, state.released_atoms) == (4_000, 200)


def test_a_market_buy_by_quote_gives_back_what_buys_no_lot(desk: Desk) -> None:
    desk.sell(ALICE, 100, 9)
    state = desk.buy(BOB, 0, 0, **AT_MARKET, quote_atoms=3_999, hold_atoms=3_999)
    assert ending(state) == (OrderStatus.FILLED, Reason.NONE, 3)
    assert state.released_atoms == 999
    assert ending(desk.buy(BOB, 0, 0, **AT_MARKET, quote_atoms=9_000, hold_atoms=9_000)) == (
        OrderStatus.EXPIRED, Reason.UNFILLED_REMAINDER, 6,
    )  # fmt: skip
    desk.sell(ALICE, 100, 9)
    assert ending(desk.buy(BOB, 0, 0, **AT_MARKET, quote_atoms=999, hold_atoms=999)) == (
        OrderStatus.CANCELED, Reason.HOLD_EXHAUSTED, 0,
    )  # fmt: skip
    exact = desk.buy(BOB, 0, 0, **AT_MARKET, quote_atoms=9_000, hold_atoms=9_000)
    assert ending(exact) == (OrderStatus.FILLED, Reason.NONE, 9)  # Money and book end together.


def test_fok_by_quote_is_filled_when_money_and_book_end_together(desk: Desk) -> None:
    desk.sell(ALICE, 100, 9)
    spend = AT_MARKET | FOK
    assert ending(desk.buy(BOB, 0, 0, **spend, quote_atoms=9_001, hold_atoms=9_001)) == (
        OrderStatus.EXPIRED, Reason.FOK_NOT_FILLABLE, 0,
    )  # fmt: skip
    exact = desk.buy(BOB, 0, 0, **spend, quote_atoms=9_000, hold_atoms=9_000)
    assert ending(exact) == (OrderStatus.FILLED, Reason.NONE, 9)


def test_a_market_sell_meets_the_bids(desk: Desk) -> None:
    desk.buy(ALICE, 100, 2)
    state = desk.sell(BOB, 0, 5, **AT_MARKET)
    assert ending(state) == (OrderStatus.EXPIRED, Reason.UNFILLED_REMAINDER, 2)
    assert (state.fee_atoms, state.released_atoms) == (4, 3_000)


@pytest.mark.parametrize(
    ("stp", "taker_ends", "maker_ends"),
    [
        (SelfTradePrevention.CANCEL_TAKER, OrderStatus.CANCELED, None),
        (SelfTradePrevention.CANCEL_MAKER, OrderStatus.FILLED, OrderStatus.CANCELED),
        (SelfTradePrevention.CANCEL_BOTH, OrderStatus.CANCELED, OrderStatus.CANCELED),
    ],
)
def test_nobody_trades_with_themselves(
    desk: Desk, stp: SelfTradePrevention, taker_ends: OrderStatus, maker_ends: OrderStatus | None
) -> None:
    desk.sell(BOB, 100, 1)
    desk.sell(ALICE, 100, 2)
    desk.sell(BOB, 100, 3)
    order = desk.order(ALICE, Side.BUY, 100, 4, stp=stp)
    settlement = desk.do(order).settlement
    states = {state.order_id: state for state in settlement.orders}
    assert states[order.order_id].status is taker_ends
    assert (states[2].status if 2 in states else None) is maker_ends
    assert all(trade.maker_user_id == BOB for trade in settlement.trades)
    if taker_ends is OrderStatus.CANCELED:
        assert ending(states[order.order_id]) == (OrderStatus.CANCELED, Reason.SELF_TRADE, 1)


@pytest.mark.parametrize("stp", SelfTradePrevention)
def test_fok_counts_self_trade_prevention_in(desk: Desk, stp: SelfTradePrevention) -> None:
    desk.sell(BOB, 100, 1)
    desk.sell(ALICE, 100, 2)
    desk.sell(BOB, 100, 3)
    passes_by = stp is SelfTradePrevention.CANCEL_MAKER
    killed = desk.buy(ALICE, 100, 5, **FOK, stp=stp)
    assert ending(killed) == (OrderStatus.EXPIRED, Reason.FOK_NOT_FILLABLE, 0)
    assert desk.book()[1] == [(100, 6)]  # A killed order cancels nobody.
    expected = OrderStatus.FILLED if passes_by else OrderStatus.EXPIRED
    assert desk.buy(ALICE, 100, 4, **FOK, stp=stp).status is expected


def test_money_that_ends_before_the_own_order_is_spent(desk: Desk) -> None:
    desk.sell(BOB, 100, 3)
    desk.sell(ALICE, 100, 2)
    spend = AT_MARKET | FOK | {"quote_atoms": 3_999, "hold_atoms": 3_999}
    assert ending(desk.buy(ALICE, 0, 0, **spend)) == (OrderStatus.FILLED, Reason.NONE, 3)


def test_a_cancel_is_for_the_owner_and_for_live_orders(desk: Desk) -> None:
    desk.buy(ALICE, 100, 5)
    desk.sell(BOB, 100, 2)
    for command in (Cancel(1, BOB), Cancel(2, BOB), Cancel(77, ALICE)):
        applied = desk.do(command)
        assert applied.settlement.orders == []
        assert applied.books == []
    (state,) = desk.do(Cancel(1, ALICE)).settlement.orders
    assert ending(state) == (OrderStatus.CANCELED, Reason.USER_REQUEST, 2)
    assert state.released_atoms == 3_000
    assert desk.do(Cancel(1, ALICE)).settlement.orders == []


def test_ended_orders_are_forgotten(desk: Desk) -> None:
    desk.do(desk.order(ALICE, Side.SELL, 100, 1), desk.order(ALICE, Side.SELL, 100, 1), Cancel(2, ALICE))
    desk.buy(BOB, 100, 1)
    desk.buy(BOB, 100, 1, **IOC)
    assert desk.engine._orders == {}


def test_cancel_all_is_for_one_market_or_for_all(desk: Desk) -> None:
    desk.do(SetMarket(replace(MARKET, market_id=2, symbol="ETH-USD")))
    desk.buy(ALICE, 100, 1)
    desk.buy(ALICE, 100, 1, market_id=2)
    desk.buy(BOB, 100, 1)
    assert [state.order_id for state in desk.do(CancelAll(ALICE, 2)).settlement.orders] == [2]
    assert desk.do(CancelAll(ALICE, 9)).settlement.orders == []
    assert [state.order_id for state in desk.do(CancelAll(ALICE, 0)).settlement.orders] == [1]


def test_a_halted_market_takes_cancels_only(desk: Desk) -> None:
    desk.buy(ALICE, 100, 1)
    halt = desk.do(SetMarket(replace(MARKET, status=MarketStatus.HALTED))).settlement
    assert [state.status for state in halt.markets] == [MarketStatus.HALTED]
    assert ending(desk.buy(BOB, 100, 1)) == (OrderStatus.REJECTED, Reason.MARKET_HALTED, 0)
    assert len(desk.do(Cancel(1, ALICE)).settlement.orders) == 1
    desk.do(SetMarket(MARKET))
    assert desk.buy(BOB, 100, 1).status is OrderStatus.OPEN


def test_an_unknown_market_gives_everything_back(desk: Desk) -> None:
    state = desk.buy(BOB, 100, 1, market_id=9)
    assert ending(state) == (OrderStatus.REJECTED, Reason.MARKET_HALTED, 0)
    assert (state.held_atoms, state.released_atoms) == (0, 1_000)


def test_an_order_that_is_not_held_for_is_rejected(desk: Desk) -> None:
    assert ending(desk.buy(BOB, 100, 1, hold_atoms=999)) == (OrderStatus.REJECTED, Reason.HOLD_EXHAUSTED, 0)
    assert ending(desk.sell(BOB, 100, 1, hold_atoms=1)) == (OrderStatus.REJECTED, Reason.HOLD_EXHAUSTED, 0)


def test_a_skipped_order_ends_with_its_whole_hold(desk: Desk) -> None:
    desk.buy(ALICE, 100, 5)
    sell = desk.order(BOB, Side.SELL, 100, 5)
    [state] = desk.do(Skipped(sell)).settlement.orders
    assert ending(state) == (OrderStatus.CANCELED, Reason.OPERATOR_SKIP, 0)
    assert (state.released_atoms, state.held_atoms) == (sell.hold_atoms, 0)
    assert desk.engine.resting_orders == 1


def test_a_skipped_cancel_cancels_nothing(desk: Desk) -> None:
    resting = desk.buy(ALICE, 100, 5)
    applied = desk.do(Skipped(Cancel(resting.order_id, ALICE)), Skipped(CancelAll(ALICE, 0)))
    assert applied.settlement.orders == []
    assert desk.engine.resting_orders == 1


def test_a_noop_moves_the_sequence_alone(desk: Desk) -> None:
    before = desk.engine.sequence
    applied = desk.do(Noop(7, "operator"))
    assert desk.engine.sequence == before + 1
    assert (applied.settlement.orders, applied.settlement.markets, applied.books) == ([], [], [])


def test_a_batch_tells_each_order_once(desk: Desk) -> None:
    sell, buy = desk.order(ALICE, Side.SELL, 100, 5), desk.order(BOB, Side.BUY, 105, 2)
    applied = desk.do(sell, buy, Cancel(sell.order_id, ALICE), Cancel(sell.order_id, ALICE))
    first, second = applied.settlement.orders
    assert ending(first) == (OrderStatus.CANCELED, Reason.USER_REQUEST, 2)
    assert (first.released_atoms, first.sequence) == (3_000, 4)
    assert (second.released_atoms, second.sequence) == (100, 3)
    assert applied.settlement.engine_version == ENGINE_VERSION
    (update,) = applied.books
    assert (update.sequence, update.previous, update.asks) == (5, 1, [(100, 0)])


def test_the_book_of_a_new_market_is_full_and_updates_chain(desk: Desk) -> None:
    (new,) = desk.do(SetMarket(replace(MARKET, market_id=2))).books
    assert (new.market_id, new.full, new.sequence, new.previous) == (2, True, 2, 0)
    (first,) = desk.do(desk.order(ALICE, Side.BUY, 100, 1)).books
    desk.do(Noop(0, ""))
    (second,) = desk.do(desk.order(ALICE, Side.BUY, 99, 1)).books
    assert (first.previous, first.sequence, second.previous, second.sequence) == (1, 3, 3, 5)
    assert second.bids == [(99, 1)]
    restored = Engine(0)
    restored.restore(desk.engine.snapshot())
    assert [(book.full, book.sequence) for book in restored.books()] == [(True, 5), (True, 5)]


@pytest.mark.parametrize(
    ("partition", "first", "previous"),
    [(1, 2, b"\x01" * 32), (0, 3, b"\x01" * 32), (0, 1, b"\x01" * 32), (0, 2, GENESIS_CHAIN)],
)
def test_only_the_next_batch_is_applied(desk: Desk, partition: int, first: int, previous: bytes) -> None:
    with pytest.raises(AssertionError):
        desk.engine.apply(Batch(partition, first, 1, previous, b"n" * 32, [Noop(0, "")]))


def test_a_snapshot_of_a_newer_engine_is_refused(desk: Desk) -> None:
    with pytest.raises(AssertionError):
        Engine(0).restore(replace(desk.engine.snapshot(), engine_version=ENGINE_VERSION + 1))


def test_a_market_without_a_state_is_still_to_come(desk: Desk) -> None:
    engine = Engine(0)
    engine.restore(replace(desk.engine.snapshot(), markets=[MARKET, replace(MARKET, market_id=2)]))
    assert [book.market_id for book in engine.books()] == [1]


def test_it_pauses_now_and_then_and_does_the_same(desk: Desk) -> None:
    commands = [desk.order(ALICE, Side.BUY, 100, 1) for _ in range(2 * PAUSE_ORDERS)]
    snapshot, paused, plain = desk.engine.snapshot(), Engine(0), Engine(0)
    batch = Batch(0, 2, 2, snapshot.chain, b"n" * 32, list(commands))
    pauses: list[int] = []
    for engine in (paused, plain):
        engine.restore(snapshot)
    made = paused.apply(batch, lambda: pauses.append(1))
    assert made == plain.apply(batch)
    assert len(pauses) == len(commands) // PAUSE_COMMANDS
    again = Engine(0)
    again.restore(paused.snapshot(), lambda: pauses.append(2))
    assert pauses.count(2) == 2
    assert again.snapshot() == plain.snapshot()
