"""The private channels: orders, fills and balances, each to its owner alone.

A seat is one connection's subscription. It joins the user's feed first and keeps what comes, fetches the
snapshot, sends it, then sends what the snapshot did not have: so nothing is missed in between. For the same
reason the first snapshot waits until every partition's updates are read: a reader that opens after it begins
at the end, and what came between the two would be told by nobody. Updates come from exchange.order_updates
and, sooner, from the settler itself: both after TX2 (I11), and each once.
"""

from collections.abc import Sequence
from typing import Protocol

import anyio
import msgspec

from common.core.errors import Busy, ExchangeError, Unavailable
from common.shown import account_json, fill_json
from common.telemetry import get_logger
from daemons.market_data import metrics, protocol, render
from daemons.market_data.directory import Directory
from daemons.market_data.outbox import Frame, Outbox
from daemons.market_data.render import Plain
from daemons.market_data.turns import Place, Turns
from exchange.v1 import events_pb2, orders_pb2, types_pb2

FILLS_IN_SNAPSHOT = 100
MAX_KEPT = 10_000  # Updates that wait for a snapshot.
MAX_FETCHES = 16  # Account look-ups under way.
BALANCE_S = 0.1  # Between two look-ups for one user.
OPEN_S = 10.0  # How long a client waits for the updates to be read at all, after a start.
START_OVER_S = 10.0  # The other partitions of a wiped Kafka have been found by then.

log = get_logger(__name__)


class Source(Protocol):
    """What a snapshot is fetched from; each raises ExchangeError."""

    async def live_orders(self, user_id: int) -> list[orders_pb2.Order]: ...
    async def fills(self, user_id: int, limit: int) -> Sequence[types_pb2.Fill]: ...
    async def accounts(self, user_id: int) -> Sequence[types_pb2.Account]: ...


Update = tuple[events_pb2.UserOrderUpdate, int]  # And the time of its settlement.


class Seat:
    """One connection's place in one private channel. `sequence` counts what this seat was sent."""

    def __init__(self, desk: "PrivateDesk", kind: str, user_id: int, outbox: Outbox) -> None:
        self.kind = kind
        self.user_id = user_id
        self._desk = desk
        self._outbox = outbox
        self._sequence = 0
        self._kept: list[Update] | None = []
        self._left = False
        self._balances: dict[int, types_pb2.Account] = {}
        # What the snapshot showed: this process may still read what is older, and no order goes backwards.
        self._orders: dict[int, orders_pb2.Order] = {}
        self._fills: set[tuple[int, int, int]] = set()

    async def start(self) -> None:
        """Send the snapshot, then what came meanwhile; raises ExchangeError."""
        await self._desk.opened()
        if self._left:
            return
        self._desk.join(self)
        match self.kind:
            case "orders":
                await self._start_orders()
            case "fills":
                await self._start_fills()
            case "balances":
                await self._start_balances()

    def leave(self) -> None:
        self._left = True
        self._kept = None
        self._desk.leave(self)

    def take(self, update: Update) -> None:
        """An update of this user."""
        if self._kept is None:
            self._tell(update)
        elif len(self._kept) < MAX_KEPT:
            self._kept.append(update)
        else:
            self._outbox.close(1013, f"too slow for {self.kind}")

    def take_accounts(self, accounts: Sequence[types_pb2.Account]) -> None:
        """The user's accounts as they are: what changed is sent."""
        if self._kept is not None:
            return  # The snapshot under way is as new, or another look-up follows it.
        for account in accounts:
            if self._balances.get(account.asset_id) == account:
                continue
            asset = self._desk.directory.asset(account.asset_id)
            if asset is not None:
                self._balances[account.asset_id] = account
                self._send(account_json(asset, account))

    def close(self) -> None:
        """The client is to subscribe again, and gets a snapshot."""
        self._outbox.close(1012, f"{self.kind} may have been missed; subscribe again")

    async def _start_orders(self) -> None:
        orders = await self._desk.source.live_orders(self.user_id)
        self._orders = {order.order_id: order for order in orders}
        rows = []
        for order in orders:
            market = await self._desk.directory.learn(order.market_id)
            if market is not None:
                rows.append(render.order_to_json(market, order))
        self._open(rows)

    async def _start_fills(self) -> None:
        fills = await self._desk.source.fills(self.user_id, FILLS_IN_SNAPSHOT)
        self._fills = {(fill.market_id, fill.trade_id, fill.order_id) for fill in fills}
        rows = []
        for fill in fills:
            market = await self._desk.directory.learn(fill.market_id)
            if market is not None:
                rows.append(fill_json(market, fill))
        self._open(rows)

    async def _start_balances(self) -> None:
        accounts = await self._desk.source.accounts(self.user_id)
        rows = []
        for account in accounts:
            asset = self._desk.directory.asset(account.asset_id)
            if asset is not None:
                self._balances[account.asset_id] = account
                rows.append(account_json(asset, account))
        touched = bool(self._kept)
        self._open(rows)
        if touched:
            self._desk.mark(self.user_id)

    def _open(self, rows: Sequence[object]) -> None:
        if self._left:
            return
        missed, self._kept = self._kept or [], None
        self._send(rows, snapshot=True)
        for update in missed:
            self._tell(update)

    def _tell(self, update: Update) -> None:
        change, time_us = update
        market = self._desk.directory.market(change.state.market_id)
        if market is None or self.kind == "balances":
            return
        if self.kind == "fills":
            for fill in without_fills(change, self._fills).fills:
                self._send(fill_json(market, fill))
        elif not in_snapshot(change, self._orders):
            self._orders.pop(change.state.order_id, None)
            self._send(render.order_update_to_json(market, change, time_us))

    def _send(self, data: object, *, snapshot: bool = False) -> None:
        self._sequence += 1
        encoded = protocol.to_json(data)
        self._outbox.send(
            Frame(
                self.kind,
                Plain(msgspec.Raw(encoded), len(encoded)),
                snapshot=snapshot,
                sequence=self._sequence,
                previous=self._sequence - 1,
                born_s=0.0 if snapshot else anyio.current_time(),
            )
        )


def in_snapshot(update: events_pb2.UserOrderUpdate, seen: dict[int, orders_pb2.Order]) -> bool:
    """True when the snapshot shows the order as the update left it, or later.

    An order's filled quantity and status only move forward, so they say which is newer; its `sequence`
    does not, because the orders table keeps that of the Place.
    """
    order = seen.get(update.state.order_id)
    if order is None:
        return False
    state = update.state
    return (state.filled_lots, state.status) <= (order.filled_lots, order.status)


def without_fills(
    update: events_pb2.UserOrderUpdate, seen: set[tuple[int, int, int]]
) -> events_pb2.UserOrderUpdate:
    """The update with those fills alone that the snapshot did not have."""
    fills = [fill for fill in update.fills if (fill.market_id, fill.trade_id, fill.order_id) not in seen]
    return events_pb2.UserOrderUpdate(state=update.state, fills=fills)


class PrivateDesk:
    """All seats, by user, and the account look-ups for those who watch their balances."""

    def __init__(self, source: Source, directory: Directory) -> None:
        self.source = source
        self.directory = directory
        self._seats: dict[int, dict[Seat, None]] = {}
        self._turns = Turns()
        self._touched: dict[int, None] = {}  # Users whose accounts are to be looked up.
        self._waiting = anyio.Event()
        self._started_over_s = float("-inf")
        self._reading = anyio.Event()

    def open(self) -> None:
        """The updates of every partition are read from now on."""
        self._reading.set()

    async def opened(self) -> None:
        """Until they are. Raises Unavailable when that takes too long: Kafka is away."""
        with anyio.move_on_after(OPEN_S):
            await self._reading.wait()
            return
        raise Unavailable("Order updates cannot be read yet; subscribe again")

    def seat(self, kind: str, user_id: int, outbox: Outbox) -> Seat:
        return Seat(self, kind, user_id, outbox)

    def join(self, seat: Seat) -> None:
        self._seats.setdefault(seat.user_id, {})[seat] = None
        metrics.subscriptions.labels(seat.kind).inc()

    def leave(self, seat: Seat) -> None:
        seats = self._seats.get(seat.user_id, {})
        if seats.pop(seat, seat) is None:
            metrics.subscriptions.labels(seat.kind).dec()
        if not seats:
            self._seats.pop(seat.user_id, None)

    def has_seen(self, updates: events_pb2.OrderUpdates) -> bool:
        """True when taking this record would change nothing."""
        return self._turns.seen(updates)

    def take(self, updates: events_pb2.OrderUpdates, after: Place | None = None) -> bool:
        """A record of exchange.order_updates, or the same told directly, `after` another; one that was seen
        changes nothing. False when its turn has not come: Kafka is waited for."""
        failures: list[Exception] = []
        for due in self._turns.take(updates, after):
            try:
                self._tell(due)
            except Exception as error:  # It has had its turn, and those behind it must have theirs.
                failures.append(error)
        if failures:
            raise failures[0]
        return self._turns.seen(updates)

    def _tell(self, updates: events_pb2.OrderUpdates) -> None:
        if not self._seats:
            return
        for update in updates.orders:
            user_id = update.state.user_id
            seats = self._seats.get(user_id)
            if seats is None:
                continue
            for seat in list(seats):
                seat.take((update, updates.time_us))
                if seat.kind == "balances":
                    self.mark(user_id)

    def start_over(self) -> None:
        """Updates may be lost: Kafka was wiped before they were read, or before they were sent.

        They are settled, so every snapshot from now on has them; each partition that finds it out says so.
        """
        now_s = anyio.current_time()
        if now_s - self._started_over_s < START_OVER_S:
            return
        self._started_over_s = now_s
        seats = [seat for seats in self._seats.values() for seat in seats]
        log.warning("private clients are to subscribe again", seats=len(seats))
        for seat in seats:
            seat.close()

    def mark(self, user_id: int) -> None:
        """Look the user's accounts up soon; several marks make one look-up."""
        self._touched[user_id] = None
        self._waiting.set()

    async def run(self) -> None:
        """Look up the accounts of touched users until cancelled."""
        limit = anyio.CapacityLimiter(MAX_FETCHES)
        while True:
            await self._waiting.wait()
            self._waiting = anyio.Event()
            touched, self._touched = self._touched, {}
            async with anyio.create_task_group() as group:
                for user_id in touched:
                    group.start_soon(self._look_up, user_id, limit)
                # What is touched meanwhile makes the next round.
                await anyio.sleep(BALANCE_S)

    async def _look_up(self, user_id: int, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            if user_id not in self._seats:
                return
            try:
                accounts = await self.source.accounts(user_id)
            except ExchangeError as error:
                metrics.balance_fetches.labels(error.code).inc()
                if not isinstance(error, Busy):
                    log.warning("accounts cannot be read", user_id=user_id, error=error.message)
                self._touched[user_id] = None  # Again in the next round.
                self._waiting.set()
                return
            metrics.balance_fetches.labels("OK").inc()
            for seat in list(self._seats.get(user_id, {})):
                if seat.kind == "balances":
                    seat.take_accounts(accounts)
