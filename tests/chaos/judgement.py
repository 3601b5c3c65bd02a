"""What must fit between what the clients were told and what the exchange says at rest; pure.

It knows nothing of the exchange's tables, and of its code only the documents: what an order holds, what a
fee is, what belongs to what. Whatever does not fit is a sentence with the evidence.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.told import (
    ENDED,
    LIVE,
    UNIT,
    Accepted,
    Account,
    Fill,
    Json,
    Sent,
    Told,
    Violations,
    atoms,
)


@dataclass(slots=True)
class Seen:
    """What the exchange says of one user."""

    account: Account
    orders: list[Json]
    fills: list[Fill]
    balances: dict[str, tuple[int, int]]  # Available and held, by asset.


@dataclass(slots=True)
class Market:
    symbol: str
    base: str
    quote: str
    maker_bps: int
    taker_bps: int
    book: Json
    candles: list[Json]
    trades: list[Json]


@dataclass
class Verdict:
    """What was compared, and what did not fit."""

    orders: int = 0
    asked_again: int = 0
    looked_up: int = 0
    fills: int = 0
    fills_heard: int = 0
    trades: int = 0
    accounts: int = 0
    candles: int = 0
    levels: int = 0
    wrong: Violations = field(default_factory=Violations)


def judge_users(told: Told, seen: Sequence[Seen], markets: Sequence[Market], verdict: Verdict) -> None:
    """Orders, fills and money, and whatever was wrong on the way."""
    by_symbol = {market.symbol: market for market in markets}
    for one in seen:
        _orders(one, verdict)
        _heard(one, verdict)
        _sums(one, verdict)
        _fees(one, by_symbol, verdict)
        _balances(one, by_symbol, verdict)
    _all_money(seen, verdict)
    _trades(seen, verdict)
    verdict.asked_again = told.asked_again
    for what in told.violations.first:
        verdict.wrong.add(what)
    verdict.wrong.count += told.violations.count - len(told.violations.first)


def judge_markets(seen: Sequence[Seen], markets: Sequence[Market], verdict: Verdict) -> None:
    """What everybody sees, against what the users have."""
    trades = _trades(seen, Verdict())
    for market in markets:
        _tape(market, trades.get(market.symbol, {}), verdict)
        _candles(market, trades.get(market.symbol, {}), verdict)
        _book(market, seen, verdict)


def _orders(one: Seen, verdict: Verdict) -> None:
    """Each promised order is there, once, as promised; and nothing else is."""
    account, wrong = one.account, verdict.wrong
    listed = {order["order_id"]: order for order in one.orders}
    by_name = {order["client_order_id"]: order for order in one.orders}
    verdict.orders += len(one.orders)
    if not len(listed) == len(by_name) == len(one.orders):
        wrong.add(
            f"user {account.user_id} has {len(one.orders)} orders: {len(listed)} ids, {len(by_name)} names"
        )
    for sent in account.sent.values():
        order = by_name.get(sent.client_order_id)
        if not isinstance(sent.answer, Accepted):
            if sent.answer is None:
                wrong.add(f"{sent} has no answer")
            elif order is not None:
                wrong.add(f"{sent} was refused, and is there: {order}")
        elif order is None:
            wrong.add(f"{sent} was accepted, and is gone")
        elif difference := _difference(sent, sent.answer, order):
            wrong.add(f"{sent} differs in {difference} from {order}")
    for name in by_name.keys() - account.sent.keys():
        wrong.add(f"nobody sent {by_name[name]}")
    for order_id in account.canceled:
        order = listed.get(order_id)
        if order is None or order["status"] in LIVE:
            wrong.add(f"the cancel of {order_id} was accepted, and it lives: {order}")


def _difference(sent: Sent, answer: Accepted, order: Json) -> str:
    """The names of the fields in which an order is not what was sent and answered."""
    want = sent.want
    expected = {
        "order_id": answer.order_id,
        "sequence": answer.sequence,
        "created_at": answer.created_at,
        "symbol": want.symbol,
        "side": want.side,
        "type": want.type,
        "time_in_force": want.time_in_force,
        "post_only": want.post_only,
        "stp": want.stp,
    }
    wrong = [name for name, value in expected.items() if order[name] != value]
    wrong += [
        name for name in ("price", "quantity", "quote_quantity") if atoms(order[name]) != getattr(want, name)
    ]
    if order["status"] == "ACCEPTED":
        wrong.append("status")
    return ", ".join(wrong)


def _heard(one: Seen, verdict: Verdict) -> None:
    """What the private stream said is true: every fill, and how each order ended."""
    account, wrong = one.account, verdict.wrong
    fills = {fill.key: fill for fill in one.fills}
    verdict.fills += len(one.fills)
    verdict.fills_heard += len(account.fills)
    if len(fills) != len(one.fills):
        wrong.add(f"user {account.user_id} has {len(one.fills)} fills, {len(fills)} different ones")
    for key, fill in account.fills.items():
        if fills.get(key) != fill:
            wrong.add(f"user {account.user_id} heard {fill}; the list has {fills.get(key)}")
    listed = {order["order_id"]: order for order in one.orders}
    for order_id, heard in account.heard.items():
        order = listed.get(order_id)
        if order is None:
            wrong.add(f"user {account.user_id} heard of order {order_id}, which is not there")
            continue
        now = (order["status"], atoms(order["filled_quantity"]), order["reason"])
        if (heard.status in ENDED and now != heard[1:]) or heard.filled > now[1]:
            wrong.add(f"user {account.user_id} heard of order {order_id} {heard}; it is {now}")


def wrong_picture(one: Seen) -> list[str]:
    """Where the client's picture of its live orders is not what there is."""
    there = {
        order["order_id"]: (order["status"], atoms(order["filled_quantity"]))
        for order in one.orders
        if order["status"] in LIVE
    }
    believed = one.account.live
    return [
        f"user {one.account.user_id} was told that order {order_id} is {believed.get(order_id)};"
        f" it is {there.get(order_id, 'ended')}"
        for order_id in sorted(there.keys() | believed.keys())
        if there.get(order_id) != believed.get(order_id)
    ]


def _sums(one: Seen, verdict: Verdict) -> None:
    """What an order says it filled is the sum of its fills."""
    filled: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for fill in one.fills:
        sums = filled[fill.order_id]
        sums[0] += fill.quantity
        sums[1] += fill.quote
        sums[2] += fill.fee
    for order in one.orders:
        says = [atoms(order[name]) for name in ("filled_quantity", "filled_quote", "fee")]
        fills = filled.pop(order["order_id"], [0, 0, 0])
        if says != fills:
            verdict.wrong.add(f"{order}: its fills sum to {fills}")
        full = order["quantity"] is not None and says[0] == atoms(order["quantity"])
        if full and order["status"] != "FILLED":
            verdict.wrong.add(f"{order} is filled, and does not say so")
    for order_id in filled:
        verdict.wrong.add(f"user {one.account.user_id} has fills of order {order_id}, which is not there")


def _fees(one: Seen, markets: Mapping[str, Market], verdict: Verdict) -> None:
    """Basis points of what is received, rounded up; the buyer receives base, the seller quote."""
    for fill in one.fills:
        market = markets[fill.symbol]
        received, asset = (fill.quantity, market.base) if fill.side == "BUY" else (fill.quote, market.quote)
        bps = market.maker_bps if fill.liquidity == "MAKER" else market.taker_bps
        if (fill.fee, fill.fee_asset) != (-(-received * bps // 10_000), asset):
            verdict.wrong.add(f"user {one.account.user_id}: the fee of {fill}")


def _balances(one: Seen, markets: Mapping[str, Market], verdict: Verdict) -> None:
    """Start + fills = available + held; held = what the live orders need."""
    total, held = dict(one.account.start), dict.fromkeys(one.account.start, 0)
    for fill in one.fills:
        market = markets[fill.symbol]
        sign = 1 if fill.side == "BUY" else -1
        total[market.base] += sign * fill.quantity
        total[market.quote] -= sign * fill.quote
        total[fill.fee_asset] -= fill.fee
    for order in one.orders:
        if order["status"] in LIVE:
            market = markets[order["symbol"]]
            left = atoms(order["quantity"]) - atoms(order["filled_quantity"])
            if order["side"] == "BUY":
                held[market.quote] += left * atoms(order["price"]) // UNIT
            else:
                held[market.base] += left
    verdict.accounts += len(total)
    for asset in total.keys() | one.balances.keys():
        expected = (total.get(asset, 0) - held.get(asset, 0), held.get(asset, 0))
        if one.balances.get(asset, (0, 0)) != expected:
            verdict.wrong.add(
                f"user {one.account.user_id} has {one.balances.get(asset)} {asset} (available, held);"
                f" by its own fills and orders {expected}"
            )


def _all_money(seen: Sequence[Seen], verdict: Verdict) -> None:
    """Nothing came from nowhere: all users together have what they began with, less the fees."""
    sums: dict[str, int] = defaultdict(int)
    for one in seen:
        for asset, amount in one.account.start.items():
            sums[asset] += amount
        for fill in one.fills:
            sums[fill.fee_asset] -= fill.fee
        for asset, (available, held) in one.balances.items():
            sums[asset] -= available + held
    for asset, rest in sums.items():
        if rest:
            verdict.wrong.add(f"{rest} atoms of {asset} are missing over all users and fees")


Trades = dict[str, dict[int, tuple[Fill, Fill]]]


def _trades(seen: Sequence[Seen], verdict: Verdict) -> Trades:
    """Both sides of each trade tell the same; ids are consecutive. Gives (maker, taker) by symbol, id."""
    sides: dict[tuple[str, int], list[tuple[str, Fill]]] = defaultdict(list)
    for one in seen:
        for fill in one.fills:
            sides[fill.symbol, fill.trade_id].append((one.account.user_id, fill))
    trades: Trades = defaultdict(dict)
    for (symbol, trade_id), both in sorted(sides.items()):
        both.sort(key=lambda side: side[1].liquidity)
        fills = [fill for _, fill in both]
        if (
            len(both) != 2
            or both[0][0] == both[1][0]
            or [fill.liquidity for fill in fills] != ["MAKER", "TAKER"]
            or {fill.side for fill in fills} != {"BUY", "SELL"}
            or len({(fill.price, fill.quantity, fill.time) for fill in fills}) != 1
        ):
            verdict.wrong.add(f"trade {trade_id} of {symbol}: {both}")
            continue
        trades[symbol][trade_id] = (fills[0], fills[1])
    for symbol, by_id in trades.items():
        verdict.trades += len(by_id)
        if sorted(by_id) != list(range(1, len(by_id) + 1)):
            verdict.wrong.add(f"{symbol}: {len(by_id)} trades, with ids from {min(by_id)} to {max(by_id)}")
    return trades


def _tape(market: Market, trades: Mapping[int, tuple[Fill, Fill]], verdict: Verdict) -> None:
    """The public trades are the newest of those that users have."""
    expected = [
        (taker.trade_id, taker.price, taker.quantity, taker.side, taker.time)
        for _, (_, taker) in sorted(trades.items(), reverse=True)[: len(market.trades)]
    ]
    found = [
        (int(row["trade_id"]), atoms(row["price"]), atoms(row["quantity"]), row["taker_side"], row["time"])
        for row in market.trades
    ]
    if found != expected or len(found) < min(len(trades), 100):
        at = next((pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), None)
        verdict.wrong.add(f"{market.symbol}: of the last {len(found)} public trades one differs: {at}")


def _candles(market: Market, trades: Mapping[int, tuple[Fill, Fill]], verdict: Verdict) -> None:
    """Volume, quote volume and count of each minute are those of its trades."""
    minutes: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for _, taker in trades.values():
        sums = minutes[taker.time[:16]]
        sums[0] += taker.quantity
        sums[1] += taker.quote
        sums[2] += 1
    shown: dict[str, list[Any]] = {
        row["open_time"][:16]: [atoms(row["volume"]), atoms(row["quote_volume"]), row["trades"]]
        for row in market.candles
        if row["trades"]
    }
    verdict.candles += len(shown)
    for minute in minutes.keys() | shown.keys():
        if minutes.get(minute) != shown.get(minute):
            found = shown.get(minute)
            verdict.wrong.add(f"{market.symbol}: candle {minute} is {found}; trades {minutes.get(minute)}")


def _book(market: Market, seen: Sequence[Seen], verdict: Verdict) -> None:
    """The public book is the sum of the users' live orders."""
    levels: dict[tuple[str, int], int] = defaultdict(int)
    for one in seen:
        for order in one.orders:
            if order["symbol"] == market.symbol and order["status"] in LIVE:
                left = atoms(order["quantity"]) - atoms(order["filled_quantity"])
                levels[order["side"], atoms(order["price"])] += left
    shown = {
        (side, atoms(price)): atoms(quantity)
        for side, name in (("BUY", "bids"), ("SELL", "asks"))
        for price, quantity in market.book[name]
    }
    verdict.levels += len(shown)
    if shown != dict(levels):
        different = [(key, levels.get(key), shown.get(key)) for key in levels.keys() | shown.keys()]
        first = [one for one in different if one[1] != one[2]][:5]
        verdict.wrong.add(f"{market.symbol}: (level, orders, book) {first}")
