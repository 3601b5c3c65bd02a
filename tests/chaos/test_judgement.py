"""The oracle must notice: each lie about a small, sound exchange is found, and the truth is not."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import pytest

from tests.chaos.judgement import Market, Seen, Verdict, judge_markets, judge_users, wrong_picture
from tests.chaos.told import UNIT, Accepted, Account, Fill, Refused, Sent, Told, Want, fill_of

TIME = "2026-01-02T03:04:05.000006Z"
START = {"USD": 1_000_000 * UNIT, "BTC": 100 * UNIT}


class World(NamedTuple):
    told: Told
    seen: list[Seen]
    markets: list[Market]


def order(
    order_id: str, name: str, side: str, status: str, filled: str, fee: str, **more: Any
) -> dict[str, Any]:
    plain = {
        "order_id": order_id,
        "client_order_id": name,
        "symbol": "BTC-USD",
        "side": side,
        "type": "LIMIT",
        "time_in_force": "GTC",
        "post_only": False,
        "stp": "CANCEL_TAKER",
        "price": "60000.00",
        "quantity": "0.50000",
        "quote_quantity": None,
        "filled_quantity": filled,
        "filled_quote": str(int(float(filled) * 60_000)),
        "fee": fee,
        "status": status,
        "reason": None,
        "sequence": int(order_id),
        "created_at": TIME,
    }
    return plain | more


def fill(order_id: str, side: str, fee: str, asset: str, liquidity: str) -> dict[str, Any]:
    return {
        "trade_id": "1",
        "order_id": order_id,
        "symbol": "BTC-USD",
        "side": side,
        "price": "60000.00",
        "quantity": "0.20000",
        "fee": fee,
        "fee_asset": asset,
        "liquidity": liquidity,
        "time": TIME,
    }


def sound() -> World:
    """One bought 0.2 of 0.5 BTC and rests with the others; one sold 0.2 and was refused something."""
    told = Told()
    buyer, seller = (Account(number, "", dict(START), told.violations) for number in ("1", "2"))
    told.accounts += [buyer, seller]
    bid = Want("BTC-USD", "BUY", price=60_000 * UNIT, quantity=UNIT // 2)
    ask = Want("BTC-USD", "SELL", time_in_force="IOC", price=60_000 * UNIT, quantity=UNIT // 5)
    buyer.sent["a"] = Sent("a", bid, answer=Accepted("7", 7, TIME))
    seller.sent["b"] = Sent("b", ask, answer=Accepted("8", 8, TIME))
    seller.sent["c"] = Sent("c", ask, answer=Refused(422, "INSUFFICIENT_FUNDS"))
    bought = fill("7", "BUY", "0.0002", "BTC", "MAKER")
    sold = fill("8", "SELL", "24", "USD", "TAKER")
    buyer.hear_fill(bought)
    buyer.hear_order(order("7", "a", "BUY", "PARTIALLY_FILLED", "0.2", "0.0002"), 1)
    seller.hear_order(order("8", "b", "SELL", "FILLED", "0.2", "24"), 1)
    usd, btc = START["USD"], START["BTC"]
    seen = [
        Seen(
            buyer,
            [order("7", "a", "BUY", "PARTIALLY_FILLED", "0.2", "0.0002")],
            [fill_of(bought)],
            {"USD": (usd - 30_000 * UNIT, 18_000 * UNIT), "BTC": (btc + UNIT // 5 - UNIT // 5_000, 0)},
        ),
        Seen(
            seller,
            [order("8", "b", "SELL", "FILLED", "0.2", "24", time_in_force="IOC", quantity="0.20000")],
            [fill_of(sold)],
            {"USD": (usd + (12_000 - 24) * UNIT, 0), "BTC": (btc - UNIT // 5, 0)},
        ),
    ]
    tape = {key: sold[key] for key in ("trade_id", "price", "quantity", "time")} | {"taker_side": "SELL"}
    candle = {"open_time": TIME, "volume": "0.20000", "quote_volume": "12000", "trades": 1}
    book = {"bids": [["60000.00", "0.30000"]], "asks": []}
    return World(told, seen, [Market("BTC-USD", "BTC", "USD", 10, 20, book, [candle], [tape])])


def wrongs(world: World) -> list[str]:
    verdict = Verdict()
    judge_users(world.told, world.seen, world.markets, verdict)
    judge_markets(world.seen, world.markets, verdict)
    return verdict.wrong.first + [what for one in world.seen for what in wrong_picture(one)]


def test_the_truth_is_accepted() -> None:
    assert wrongs(sound()) == []


def tell_nobody_of_an_end(world: World) -> None:
    world.told.accounts[1].live["8"] = "OPEN", 0


def tell_nobody_of_a_fill(world: World) -> None:
    world.told.accounts[0].live["7"] = "OPEN", 0


def tell_nobody_of_an_order(world: World) -> None:
    world.told.accounts[0].live.clear()


def lose_an_order(world: World) -> None:
    world.seen[0].orders.clear()


def double_an_order(world: World) -> None:
    world.seen[0].orders.append(world.seen[0].orders[0] | {"order_id": "9"})


def invent_an_order(world: World) -> None:
    world.seen[0].orders.append(order("9", "x", "BUY", "CANCELED", "0", "0"))


def keep_a_refused_order(world: World) -> None:
    world.seen[1].orders.append(order("9", "c", "SELL", "CANCELED", "0", "0"))


def change_a_price(world: World) -> None:
    world.seen[0].orders[0]["price"] = "60001.00"


def change_a_sequence(world: World) -> None:
    world.seen[0].orders[0]["sequence"] += 1


def leave_an_order_behind(world: World) -> None:
    world.seen[1].orders[0]["status"] = "ACCEPTED"


def answer_otherwise(world: World) -> None:
    account = world.told.accounts[0]
    account.answered(account.sent["a"], Accepted("9", 9, TIME))


def never_answer(world: World) -> None:
    world.told.accounts[1].sent["c"].answer = None


def let_a_canceled_order_live(world: World) -> None:
    world.told.accounts[0].canceled.add("7")


def forget_a_fill_that_was_heard(world: World) -> None:
    world.seen[0].fills.clear()


def tell_a_fill_twice_and_differently(world: World) -> None:
    world.told.accounts[0].hear_fill(fill("7", "BUY", "0.0003", "BTC", "MAKER"))


def take_back_an_end(world: World) -> None:
    world.told.accounts[1].hear_order(order("8", "b", "SELL", "OPEN", "0", "0"), 1)


def end_an_order_otherwise(world: World) -> None:
    world.seen[1].orders[0]["status"] = "EXPIRED"


def settle_twice(world: World) -> None:
    world.seen[0].fills.append(world.seen[0].fills[0])


def settle_one_side_at_another_price(world: World) -> None:
    one: Fill = world.seen[0].fills[0]
    world.seen[0].fills[0] = one._replace(price=one.price + UNIT)


def take_too_much_of_a_fee(world: World) -> None:
    one: Fill = world.seen[1].fills[0]
    world.seen[1].fills[0] = one._replace(fee=one.fee + 1)


def lose_an_atom(world: World) -> None:
    available, held = world.seen[0].balances["USD"]
    world.seen[0].balances["USD"] = (available - 1, held)


def hold_too_much(world: World) -> None:
    available, held = world.seen[0].balances["USD"]
    world.seen[0].balances["USD"] = (available - 1, held + 1)


def skip_a_trade_id(world: World) -> None:
    for seen in world.seen:
        seen.fills[0] = seen.fills[0]._replace(trade_id=2)


def miss_a_trade_in_a_candle(world: World) -> None:
    world.markets[0].candles[0]["trades"] = 2


def forget_a_level(world: World) -> None:
    world.markets[0].book["bids"].clear()


def change_the_tape(world: World) -> None:
    world.markets[0].trades[0]["quantity"] = "0.30000"


@pytest.mark.parametrize(
    "lie",
    [
        tell_nobody_of_an_end,
        tell_nobody_of_a_fill,
        tell_nobody_of_an_order,
        lose_an_order,
        double_an_order,
        invent_an_order,
        keep_a_refused_order,
        change_a_price,
        change_a_sequence,
        leave_an_order_behind,
        answer_otherwise,
        never_answer,
        let_a_canceled_order_live,
        forget_a_fill_that_was_heard,
        tell_a_fill_twice_and_differently,
        take_back_an_end,
        end_an_order_otherwise,
        settle_twice,
        settle_one_side_at_another_price,
        take_too_much_of_a_fee,
        lose_an_atom,
        hold_too_much,
        skip_a_trade_id,
        miss_a_trade_in_a_candle,
        forget_a_level,
        change_the_tape,
    ],
    ids=lambda lie: lie.__name__,
)
def test_a_lie_is_found(lie: Callable[[World], None]) -> None:
    world = deepcopy(sound())
    lie(world)
    assert wrongs(world) != []
