"""What TX1 decides, without any I/O: which rows to look at, and what to write.

`lookup_for` says what the first round trip must find, `decide` makes a plan from what it found, and
`Plan.answer` turns the sequence that the batch was given into answers.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.core import messages as m
from common.core.errors import (
    Busy,
    DuplicateClientOrderId,
    ExchangeError,
    InsufficientFunds,
    MarketHalted,
    OrderNotFound,
    OrderNotLive,
)
from common.core.orders import check_order, hold_for
from common.core.units import atoms_to_text
from daemons.order_service.markets import Markets
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

ALL_MARKETS = 0
_ACTIVE = m.MarketStatus.ACTIVE

# A request's market when it has one, or why it is refused; nothing here needed the database.
Checked = m.Market | ExchangeError | None


@dataclass(slots=True)
class Lookup:
    """Keys of the rows that a batch refers to; `accounts` are (user_id, asset_id), `keys` those of cancels
    under an idempotency key, `partitions` those of the new orders."""

    users: set[int] = field(default_factory=set)
    client_ids: set[tuple[int, str]] = field(default_factory=set)
    cancels: set[int] = field(default_factory=set)
    sweepers: set[int] = field(default_factory=set)
    markets: set[int] = field(default_factory=set)
    accounts: set[tuple[int, int]] = field(default_factory=set)
    keys: set[tuple[int, str]] = field(default_factory=set)
    partitions: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Known:
    """An order that stands under a client_order_id already."""

    accepted: Accepted
    order: NewOrder


@dataclass(slots=True)
class Seen:
    """What the database said. `cancels`: order -> (user, partition, status); `live`: user -> (partition,
    market, orders); `states`: market -> (status, last price in ticks); `available`: atoms by account;
    `effects`: what a cancel under an idempotency key was answered before: its sequence, or how many orders.
    `crowded` is from the backlog: partition -> commands that wait, of those that take no new orders."""

    known: dict[tuple[int, str], Known] = field(default_factory=dict)
    cancels: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    live: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    states: dict[int, tuple[int, int]] = field(default_factory=dict)
    available: dict[tuple[int, int], int] = field(default_factory=dict)
    effects: dict[tuple[int, str], int] = field(default_factory=dict)
    crowded: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """A command of the plan and the request that it answers; None: another command answers it."""

    index: int | None
    command: m.Command


@dataclass(slots=True)
class Plan:
    """What a batch writes. `twins` repeat, within the batch, the request that they point at."""

    requests: Sequence[Request]
    answers: list[Answer | None]
    entries: dict[int, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    holds: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    placed: dict[tuple[int, str], int] = field(default_factory=dict)
    twins: dict[int, int] = field(default_factory=dict)
    keyed: bool = False  # Some of the cancels have an idempotency key.

    def answer(self, partition: int, first_sequence: int, time_us: int, symbols: dict[int, str]) -> None:
        """The partition's commands have their sequence now: answer the requests behind them."""
        for offset, entry in enumerate(self.entries[partition]):
            if entry.index is None:
                continue
            sequence, command = first_sequence + offset, entry.command
            if isinstance(command, m.Place):
                self.answers[entry.index] = Accepted(
                    command.order_id, command.client_order_id, symbols[command.market_id], sequence, time_us
                )
            elif isinstance(command, m.Cancel):
                self.answers[entry.index] = CancelAccepted(command.order_id, sequence)

    def complete(self) -> list[Answer]:
        """Every request's answer, in the order of the requests."""
        for twin, first in self.twins.items():
            answer = self.answers[first]
            assert isinstance(answer, Accepted)
            self.answers[twin] = Accepted(
                answer.order_id,
                answer.client_order_id,
                answer.symbol,
                answer.sequence,
                answer.created_us,
                repeated=True,
            )
        answers = [answer for answer in self.answers if answer is not None]
        assert len(answers) == len(self.requests)
        return answers

    def effects(self) -> list[tuple[int, int, str]]:
        """(effect, user, key) of the cancels under a key that are done now, in the order of their locks."""
        if not self.keyed:
            return []
        return sorted(
            (
                (answer.sequence if isinstance(answer, CancelAccepted) else answer.orders, *key)
                for request, answer in zip(self.requests, self.answers, strict=True)
                if isinstance(answer, CancelAccepted | Canceling) and (key := _key_of(request))
            ),
            key=lambda effect: effect[1:],
        )


def check(request: Request, markets: Markets) -> Checked:
    """What can be said of a request without the database."""
    if isinstance(request, CancelOrder) or (not request.symbol and isinstance(request, CancelAllOrders)):
        return None
    try:
        market = markets.named(request.symbol)
        if isinstance(request, NewOrder):
            check_order(
                market,
                side=request.side,
                type=request.type,
                time_in_force=request.time_in_force,
                post_only=request.post_only,
                price_ticks=request.price_ticks,
                qty_lots=request.qty_lots,
                quote_atoms=request.quote_atoms,
                client_order_id=request.client_order_id,
            )
    except ExchangeError as error:
        return error
    return market


def lookup_for(requests: Sequence[Request], checked: Sequence[Checked]) -> Lookup:
    """The keys of everything that the batch refers to; a refused request needs nothing."""
    lookup = Lookup()
    for request, market in zip(requests, checked, strict=True):
        if isinstance(market, ExchangeError):
            continue
        lookup.users.add(request.user_id)
        if not isinstance(request, NewOrder):
            if isinstance(request, CancelOrder):
                lookup.cancels.add(request.order_id)
            else:
                lookup.sweepers.add(request.user_id)
            if key := _key_of(request):
                lookup.keys.add(key)
        else:
            assert market is not None
            lookup.markets.add(market.market_id)
            lookup.partitions.add(market.partition)
            lookup.accounts.add((request.user_id, _pays(request, market).asset_id))
            if request.client_order_id:
                lookup.client_ids.add((request.user_id, request.client_order_id))
    return lookup


def decide(
    requests: Sequence[Request], checked: Sequence[Checked], order_ids: Sequence[int], seen: Seen
) -> Plan:
    """Decide request by request, in order; `seen.available` shrinks with each hold."""
    plan = Plan(requests, [None] * len(requests))
    for index, (request, market) in enumerate(zip(requests, checked, strict=True)):
        try:
            if isinstance(market, ExchangeError):
                raise market
            if isinstance(request, NewOrder):
                assert market is not None
                _decide_order(plan, seen, index, request, market, order_ids[index])
            elif isinstance(request, CancelOrder):
                _decide_cancel(plan, seen, index, request)
            else:
                _decide_cancel_all(plan, seen, index, request, market)
        except ExchangeError as error:
            plan.answers[index] = error
    return plan


def _decide_order(
    plan: Plan, seen: Seen, index: int, order: NewOrder, market: m.Market, order_id: int
) -> None:
    if order.client_order_id and _decide_repeated(plan, seen, index, order):
        return
    asset_id, hold_atoms = _hold(seen, order, market)
    plan.holds[order.user_id, asset_id] += hold_atoms
    if order.client_order_id:
        plan.placed[order.user_id, order.client_order_id] = index
    plan.entries[market.partition].append(Entry(index, _place(order, market, order_id, hold_atoms)))


def _decide_repeated(plan: Plan, seen: Seen, index: int, order: NewOrder) -> bool:
    """True when another order stands under this name already, which then answers this one."""
    name = order.user_id, order.client_order_id
    if name in seen.known:
        plan.answers[index] = _repeat(order, seen.known[name])
        return True
    if name in plan.placed:
        if plan.requests[plan.placed[name]] != order:
            raise _duplicate(order)
        plan.twins[index] = plan.placed[name]
        return True
    return False


def _repeat(order: NewOrder, known: Known) -> Accepted:
    if order != known.order:
        raise _duplicate(order)
    return known.accepted


def _duplicate(order: NewOrder) -> DuplicateClientOrderId:
    return DuplicateClientOrderId(details={"client_order_id": order.client_order_id})


def _hold(seen: Seen, order: NewOrder, market: m.Market) -> tuple[int, int]:
    """Take the order's hold out of what `seen` has available, and say of which asset and how much it is.

    Raises when there is too little.
    """
    status, last_price_ticks = seen.states.get(market.market_id) or (market.status, 0)
    if status != _ACTIVE:
        raise MarketHalted(f"{market.symbol} takes cancels only")
    if market.partition in seen.crowded:
        waiting = seen.crowded[market.partition]
        raise Busy(f"{waiting:,} orders and cancels wait to be carried out; nothing was done with this one")
    asset_id, hold_atoms = hold_for(
        market,
        side=order.side,
        type=order.type,
        price_ticks=order.price_ticks,
        qty_lots=order.qty_lots,
        quote_atoms=order.quote_atoms,
        last_price_ticks=last_price_ticks,
    )
    account = order.user_id, asset_id
    available = seen.available.get(account, 0)
    if hold_atoms > available:
        asset = _pays(order, market)
        needed, has = atoms_to_text(asset, hold_atoms), atoms_to_text(asset, available)
        raise InsufficientFunds(
            f"The order holds {needed} {asset.symbol}, available are {has} {asset.symbol}",
            {"asset": asset.symbol, "needed": needed, "available": has},
        )
    seen.available[account] = available - hold_atoms
    return asset_id, hold_atoms


def _pays(order: NewOrder, market: m.Market) -> m.Asset:
    return market.quote if order.side is m.Side.BUY else market.base


def _place(order: NewOrder, market: m.Market, order_id: int, hold_atoms: int) -> m.Place:
    return m.Place(
        order_id,
        order.user_id,
        market.market_id,
        order.side,
        order.type,
        order.time_in_force,
        order.post_only,
        order.stp,
        order.price_ticks,
        order.qty_lots,
        order.quote_atoms,
        hold_atoms,
        order.client_order_id,
    )


def _key_of(request: Request) -> tuple[int, str] | None:
    """User and idempotency key of a cancel that has one."""
    if isinstance(request, NewOrder) or not request.idempotency_key:
        return None
    return request.user_id, request.idempotency_key


def _decide_cancel(plan: Plan, seen: Seen, index: int, request: CancelOrder) -> None:
    done = seen.effects.get((request.user_id, request.idempotency_key))
    if done is not None:
        plan.answers[index] = CancelAccepted(request.order_id, done)
        return
    user_id, partition, status = seen.cancels.get(request.order_id, (0, 0, 0))
    if user_id != request.user_id:  # Somebody else's order looks the same as none.
        raise OrderNotFound(details={"order_id": str(request.order_id)})
    if not m.OrderStatus(status).live:
        ended = m.OrderStatus(status).name
        raise OrderNotLive(f"The order is {ended}", {"order_id": str(request.order_id), "status": ended})
    plan.entries[partition].append(Entry(index, m.Cancel(request.order_id, request.user_id)))


def _decide_cancel_all(
    plan: Plan, seen: Seen, index: int, request: CancelAllOrders, market: m.Market | None
) -> None:
    """One command for each partition where the user has live orders, those of this very batch included."""
    done = seen.effects.get((request.user_id, request.idempotency_key))
    if done is not None:
        plan.answers[index] = Canceling(done)
        return
    market_id = ALL_MARKETS if market is None else market.market_id
    partitions = set()
    canceling = 0
    for partition, live_market_id, orders in seen.live.get(request.user_id, ()):
        if market_id in (ALL_MARKETS, live_market_id):
            partitions.add(partition)
            canceling += orders
    for partition, entries in plan.entries.items():
        for entry in entries:
            placed = entry.command
            if not isinstance(placed, m.Place) or placed.user_id != request.user_id:
                continue
            if market_id in (ALL_MARKETS, placed.market_id):
                partitions.add(partition)
                canceling += 1
    for partition in sorted(partitions):
        plan.entries[partition].append(Entry(None, m.CancelAll(request.user_id, market_id)))
    plan.answers[index] = Canceling(canceling)
