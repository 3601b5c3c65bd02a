"""Every decision of TX1, from values to values: what is written, and what each request is answered."""

from collections.abc import Sequence

import pytest

from common.core import errors
from common.core import messages as m
from daemons.order_service.markets import Markets
from daemons.order_service.planning import Known, Lookup, Plan, Seen, check, decide, lookup_for
from daemons.order_service.requests import (
    Accepted,
    Answer,
    CancelAccepted,
    CancelAllOrders,
    Canceling,
    CancelOrder,
    NewOrder,
    Request,
)

USD, BTC, ETH = m.Asset(1, "USD", 8), m.Asset(2, "BTC", 8), m.Asset(3, "ETH", 8)
MARKETS = Markets()
MARKETS.fill(
    [
        m.Market(1, "BTC-USD", BTC, USD, 0, 1_000_000, 1_000, 10**8, 10, 20),
        m.Market(2, "ETH-USD", ETH, USD, 1, 1_000_000, 10_000, 10**8, 10, 20),
    ]
)
SYMBOLS = {1: "BTC-USD", 2: "ETH-USD"}
ANN, BOB = 1001, 1002
PRICE, LOTS = 10_000, 1_000  # 100.00 USD, 0.01 BTC
COST = PRICE * LOTS * 10  # 1 USD in atoms.
RICH = 10**15


def buy(user: int = ANN, *, symbol: str = "BTC-USD", client: str = "", lots: int = LOTS) -> NewOrder:
    return NewOrder(
        user,
        symbol,
        m.Side.BUY,
        m.OrderType.LIMIT,
        m.TimeInForce.GTC,
        False,
        m.SelfTradePrevention.CANCEL_TAKER,
        PRICE,
        lots,
        0,
        client,
    )


def sell(user: int = ANN, *, symbol: str = "BTC-USD", lots: int = LOTS) -> NewOrder:
    order = buy(user, symbol=symbol, lots=lots)
    order.side = m.Side.SELL
    return order


def market_buy(*, lots: int = 0, quote_atoms: int = 0) -> NewOrder:
    order = buy(lots=lots)
    order.type, order.time_in_force = m.OrderType.MARKET, m.TimeInForce.IOC
    order.price_ticks, order.quote_atoms = 0, quote_atoms
    return order


def seen(usd: int = RICH, *, last_price_ticks: int = 0) -> Seen:
    """Everybody has `usd` atoms, and plenty of the rest; both markets are active."""
    found = Seen()
    for user in (ANN, BOB):
        found.available |= {(user, 1): usd, (user, 2): RICH, (user, 3): RICH}
    found.states = {1: (m.MarketStatus.ACTIVE, last_price_ticks), 2: (m.MarketStatus.ACTIVE, 0)}
    return found


def plan_of(requests: Sequence[Request], found: Seen) -> Plan:
    checked = [check(request, MARKETS) for request in requests]
    return decide(requests, checked, range(100, 100 + len(requests)), found)


def answers_of(plan: Plan, first: int = 1) -> list[Answer]:
    """The answers when every partition's batch starts at `first` + 1,000 * partition, at time 7."""
    for partition in sorted(plan.entries):
        plan.answer(partition, first + 1_000 * partition, 7, SYMBOLS)
    return plan.complete()


def answers_to(requests: Sequence[Request], found: Seen) -> list[Answer]:
    return answers_of(plan_of(requests, found))


def test_an_order_becomes_a_command_that_carries_its_hold() -> None:
    plan = plan_of([buy(client="a"), sell()], seen())
    assert dict(plan.holds) == {(ANN, 1): COST, (ANN, 2): LOTS * 1_000}
    first, second = (entry.command for entry in plan.entries[0])
    assert isinstance(first, m.Place)
    assert isinstance(second, m.Place)
    assert (first.order_id, first.hold_atoms, first.client_order_id) == (100, COST, "a")
    assert (second.order_id, second.hold_atoms, second.side) == (101, LOTS * 1_000, m.Side.SELL)
    assert answers_of(plan, 41) == [
        Accepted(100, "a", "BTC-USD", 41, 7),
        Accepted(101, "", "BTC-USD", 42, 7),
    ]


def test_each_partition_numbers_its_own_commands_in_the_order_of_the_requests() -> None:
    requests: list[Request] = [
        buy(symbol="ETH-USD"),
        buy(),
        buy(BOB, symbol="ETH-USD"),
        CancelOrder(ANN, 5),
        buy(BOB),
    ]
    found = seen()
    found.cancels[5] = (ANN, 1, m.OrderStatus.OPEN)
    assert answers_to(requests, found) == [
        Accepted(100, "", "ETH-USD", 1_001, 7),
        Accepted(101, "", "BTC-USD", 1, 7),
        Accepted(102, "", "ETH-USD", 1_002, 7),
        CancelAccepted(5, 1_003),
        Accepted(104, "", "BTC-USD", 2, 7),
    ]


def test_an_order_under_a_known_client_order_id_is_answered_and_not_written() -> None:
    found = seen()
    first = Accepted(5, "a", "BTC-USD", 3, 2, repeated=True)
    found.known[ANN, "a"] = Known(first, buy(client="a"))
    plan = plan_of([buy(client="a"), buy(client="a", lots=LOTS + 1), buy(BOB, client="a")], found)
    same, different, foreign = answers_of(plan)
    assert same == first
    assert isinstance(different, errors.DuplicateClientOrderId)
    assert different.details == {"client_order_id": "a"}
    assert foreign == Accepted(102, "a", "BTC-USD", 1, 7)


@pytest.mark.parametrize(
    "name", ["symbol", "side", "type", "time_in_force", "post_only", "stp", "price_ticks"]
)
def test_every_field_makes_an_order_different(name: str) -> None:
    found, other = seen(last_price_ticks=PRICE), buy(client="a")
    change = {
        "symbol": "ETH-USD",
        "side": m.Side.SELL,
        "type": m.OrderType.MARKET,
        "time_in_force": m.TimeInForce.IOC,
        "post_only": True,
        "stp": m.SelfTradePrevention.CANCEL_BOTH,
        "price_ticks": PRICE + 1,
    }
    setattr(other, name, change[name])
    if name == "type":
        other.time_in_force, other.price_ticks = m.TimeInForce.IOC, 0
    found.known[ANN, "a"] = Known(Accepted(5, "a", "BTC-USD", 3, 2, repeated=True), other)
    [answer] = answers_to([buy(client="a")], found)
    assert isinstance(answer, errors.DuplicateClientOrderId)


def test_a_twin_in_the_batch_is_the_first_one_repeated() -> None:
    plan = plan_of([buy(client="a"), buy(client="a"), buy(client="a", lots=LOTS + 1), buy()], seen())
    assert plan.holds[ANN, 1] == 2 * COST
    assert [entry.index for entry in plan.entries[0]] == [0, 3]
    first, twin, different, other = answers_of(plan)
    assert first == Accepted(100, "a", "BTC-USD", 1, 7)
    assert twin == Accepted(100, "a", "BTC-USD", 1, 7, repeated=True)
    assert isinstance(different, errors.DuplicateClientOrderId)
    assert other == Accepted(103, "", "BTC-USD", 2, 7)


def test_a_refused_order_leaves_its_client_order_id_free() -> None:
    found = seen(usd=COST)
    too_large, fits = answers_to([buy(client="a", lots=2 * LOTS), buy(client="a")], found)
    assert isinstance(too_large, errors.InsufficientFunds)
    assert fits == Accepted(101, "a", "BTC-USD", 1, 7)


def test_funds_end_within_a_batch_and_for_that_user_alone() -> None:
    found = seen(usd=2 * COST + COST // 2)
    orders = [buy(), buy(), buy(), buy(BOB), sell(), buy(symbol="ETH-USD")]
    plan = plan_of(orders, found)
    answers = answers_of(plan)
    assert [type(answer) for answer in answers] == [
        Accepted,
        Accepted,
        errors.InsufficientFunds,
        Accepted,
        Accepted,
        errors.InsufficientFunds,
    ]
    refused = answers[2]
    assert isinstance(refused, errors.InsufficientFunds)
    assert refused.details == {"asset": "USD", "needed": "1", "available": "0.5"}
    assert plan.holds[ANN, 1] == 2 * COST
    assert found.available[ANN, 1] == COST // 2


def test_a_user_without_an_account_has_no_funds() -> None:
    [answer] = answers_to([buy(user=9)], seen())
    assert isinstance(answer, errors.InsufficientFunds)


def test_a_halted_market_takes_cancels_only() -> None:
    found = seen()
    found.states[1] = (m.MarketStatus.HALTED, PRICE)
    found.cancels[5] = (ANN, 0, m.OrderStatus.OPEN)
    found.live[ANN] = [(0, 1, 3)]
    requests: list[Request] = [
        buy(),
        buy(symbol="ETH-USD"),
        CancelOrder(ANN, 5),
        CancelAllOrders(ANN, "BTC-USD"),
    ]
    halted, other, cancel, sweep = answers_to(requests, found)
    assert isinstance(halted, errors.MarketHalted)
    assert isinstance(other, Accepted)
    assert cancel == CancelAccepted(5, 1)
    assert sweep == Canceling(3)


def test_a_crowded_partition_takes_cancels_only_and_the_others_go_on() -> None:
    found = seen()
    found.crowded = {0: 250_000}
    found.cancels[5] = (ANN, 0, m.OrderStatus.OPEN)
    requests: list[Request] = [buy(), buy(symbol="ETH-USD"), CancelOrder(ANN, 5)]
    busy, other, cancel = answers_to(requests, found)
    assert isinstance(busy, errors.Busy)
    assert busy.message.startswith("250,000 ")
    assert isinstance(other, Accepted)
    assert cancel == CancelAccepted(5, 1)


def test_a_repeat_is_answered_though_the_market_is_halted_and_the_funds_are_gone() -> None:
    found = seen(usd=0)
    found.crowded = {0: 1}
    found.states[1] = (m.MarketStatus.HALTED, PRICE)
    first = Accepted(5, "a", "BTC-USD", 3, 2, repeated=True)
    found.known[ANN, "a"] = Known(first, buy(client="a"))
    assert answers_to([buy(client="a")], found) == [first]


def test_a_market_buy_by_quantity_needs_a_last_price() -> None:
    [without] = answers_to([market_buy(lots=LOTS)], seen())
    assert isinstance(without, errors.NoReferencePrice)
    plan = plan_of([market_buy(lots=LOTS), market_buy(quote_atoms=COST)], seen(last_price_ticks=PRICE))
    by_quantity, by_money = (entry.command for entry in plan.entries[0])
    assert isinstance(by_quantity, m.Place)
    assert isinstance(by_money, m.Place)
    assert (by_quantity.hold_atoms, by_money.hold_atoms) == (COST * 105 // 100, COST)


def test_what_can_be_refused_without_the_database_is_not_looked_up() -> None:
    requests: list[Request] = [
        buy(symbol="NO-SUCH"),
        buy(lots=0),
        buy(client="not a name"),
        CancelAllOrders(ANN, "NO"),
    ]
    checked = [check(request, MARKETS) for request in requests]
    lookup = lookup_for(requests, checked)
    assert lookup == Lookup()
    assert [type(answer) for answer in answers_to(requests, seen())] == [
        errors.UnknownSymbol,
        errors.InvalidQuantity,
        errors.Malformed,
        errors.UnknownSymbol,
    ]


def test_the_look_up_names_every_row_once() -> None:
    requests: list[Request] = [
        buy(client="a"),
        buy(client="a"),
        sell(BOB, symbol="ETH-USD"),
        CancelOrder(ANN, 5),
        CancelAllOrders(BOB, ""),
    ]
    lookup = lookup_for(requests, [check(request, MARKETS) for request in requests])
    assert lookup.users == {ANN, BOB}
    assert lookup.accounts == {(ANN, 1), (BOB, 3)}
    assert lookup.client_ids == {(ANN, "a")}
    assert lookup.markets == {1, 2}
    assert (lookup.cancels, lookup.sweepers) == ({5}, {BOB})


def test_a_cancel_of_what_is_foreign_unknown_or_ended() -> None:
    found = seen()
    found.cancels = {5: (BOB, 0, m.OrderStatus.OPEN), 6: (ANN, 0, m.OrderStatus.FILLED)}
    plan = plan_of([CancelOrder(ANN, 5), CancelOrder(ANN, 4), CancelOrder(ANN, 6)], found)
    assert not plan.entries
    foreign, unknown, ended = answers_of(plan)
    assert isinstance(foreign, errors.OrderNotFound)
    assert isinstance(unknown, errors.OrderNotFound)
    assert (foreign.message, foreign.details) == (unknown.message, {"order_id": "5"})
    assert isinstance(ended, errors.OrderNotLive)
    assert ended.details == {"order_id": "6", "status": "FILLED"}


@pytest.mark.parametrize("status", list(m.OrderStatus))
def test_only_a_live_order_can_be_canceled(status: m.OrderStatus) -> None:
    found = seen()
    found.cancels[5] = (ANN, 0, status)
    [answer] = answers_to([CancelOrder(ANN, 5)], found)
    assert isinstance(answer, CancelAccepted if status.live else errors.OrderNotLive)


def test_cancel_all_counts_the_orders_of_this_batch_too() -> None:
    found = seen()
    found.live[ANN] = [(0, 1, 3), (1, 2, 4)]
    requests: list[Request] = [
        buy(),
        buy(BOB),
        buy(symbol="ETH-USD"),
        CancelAllOrders(ANN, "BTC-USD"),
        CancelAllOrders(ANN, ""),
        buy(),
    ]
    plan = plan_of(requests, found)
    assert [entry.command for entry in plan.entries[0][2:4]] == [m.CancelAll(ANN, 1), m.CancelAll(ANN, 0)]
    assert [entry.command for entry in plan.entries[1][1:]] == [m.CancelAll(ANN, 0)]
    answers = answers_of(plan)
    assert answers[3:5] == [Canceling(4), Canceling(9)]
    # The order after the sweep stands behind it, and lives.
    assert answers[5] == Accepted(105, "", "BTC-USD", 5, 7)


def test_cancel_all_of_nothing_writes_nothing() -> None:
    found = seen()
    found.live[ANN] = [(1, 2, 4)]
    plan = plan_of([CancelAllOrders(ANN, "BTC-USD"), CancelAllOrders(BOB, "")], found)
    assert not plan.entries
    assert answers_of(plan) == [Canceling(0), Canceling(0)]


def test_cancels_under_a_key_leave_their_answers_and_are_answered_from_them() -> None:
    requests: list[Request] = [
        CancelOrder(BOB, 6, "b"),
        CancelOrder(ANN, 5, "a"),
        CancelAllOrders(ANN, "", "all"),
        CancelOrder(ANN, 7, "refused"),
        CancelOrder(ANN, 5),
    ]
    assert lookup_for(requests, [None] * 5).keys == {(BOB, "b"), (ANN, "a"), (ANN, "all"), (ANN, "refused")}
    found = seen()
    found.cancels |= {5: (ANN, 0, m.OrderStatus.OPEN), 6: (BOB, 0, m.OrderStatus.OPEN)}
    found.live[ANN] = [(0, 1, 3)]
    plan = plan_of(requests, found)
    plan.keyed = True
    answers_of(plan)
    assert plan.effects() == [(2, ANN, "a"), (3, ANN, "all"), (1, BOB, "b")]

    found.effects = {(ANN, "a"): 2, (ANN, "all"): 3, (BOB, "b"): 1}
    repeated = plan_of(requests[:3], found)
    assert answers_of(repeated) == [CancelAccepted(6, 1), CancelAccepted(5, 2), Canceling(3)]
    assert not repeated.entries
