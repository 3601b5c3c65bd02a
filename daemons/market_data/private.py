"""The private channels: orders, fills and balances, each to its owner alone.

A seat is one connection's subscription. It joins the user's feed first and keeps what comes, fetches the
snapshot, sends it, then sends what the snapshot did not have: so nothing is missed in between. Updates
come from exchange.order_updates, that is, after TX2 (I11).
"""

from collections.abc import Sequence
from typing import Protocol

import anyio
import msgspec

from common.core.errors import Busy, ExchangeError
from common.shown import account_json, fill_json
from common.telemetry import get_logger
from daemons.market_data import metrics, protocol, render
from daemons.market_data.directory import Directory
from daemons.market_data.outbox import Frame, Outbox
from daemons.market_data.render import Plain
from exchange.v1 import events_pb2, orders_pb2, types_pb2

FILLS_IN_SNAPSHOT = 100
MAX_KEPT = 10_000  # Updates that wait for a snapshot.
MAX_FETCHES = 16  # Account look-ups under way.
BALANCE_S = 0.1  # Between two look-ups for one user.

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

    async def start(self) -> None:
        """Send the snapshot, then what came meanwhile; raises ExchangeError."""
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

    async def _start_orders(self) -> None:
        orders = await self._desk.source.live_orders(self.user_id)
        seen = {order.order_id: order for order in orders}
        rows = []
        for order in orders:
            market = await self._desk.directory.learn(order.market_id)
            if market is not None:
                rows.append(render.order_to_json(market, order))
        self._open(rows, [update for update in self._kept or () if not in_snapshot(update[0], seen)])

    async def _start_fills(self) -> None:
        fills = await self._desk.source.fills(self.user_id, FILLS_IN_SNAPSHOT)
        seen = {(fill.market_id, fill.trade_id, fill.order_id) for fill in fills}
        rows = []
        for fill in fills:
            market = await self._desk.directory.learn(fill.market_id)
            if market is not None:
                rows.append(fill_json(market, fill))
        self._open(rows, [(without_fills(update, seen), time_us) for update, time_us in self._kept or ()])

    async def _start_balances(self) -> None:
        accounts = await self._desk.source.accounts(self.user_id)
        rows = []
        for account in accounts:
            asset = self._desk.directory.asset(account.asset_id)
            if asset is not None:
                self._balances[account.asset_id] = account
                rows.append(account_json(asset, account))
        touched = bool(self._kept)
        self._open(rows, [])
        if touched:
            self._desk.mark(self.user_id)

    def _open(self, rows: list[dict[str, object]], missed: list[Update]) -> None:
        if self._left:
            return
        self._kept = None
        self._send(rows, snapshot=True)
        for update in missed:
            self._tell(update)

    def _tell(self, update: Update) -> None:
        change, time_us = update
        market = self._desk.directory.market(change.state.market_id)
        if market is None or self.kind == "balances":
            return
        if self.kind == "orders":
            self._send(render.order_update_to_json(market, change, time_us))
            return
        for fill in change.fills:
            self._send(fill_json(market, fill))

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
        # By partition: the last sequence that was told, and the last order of its batch.
        self._seen: dict[int, tuple[int, int]] = {}
        self._touched: dict[int, None] = {}  # Users whose accounts are to be looked up.
        self._waiting = anyio.Event()

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

    def take(self, updates: events_pb2.OrderUpdates) -> None:
        """A record of exchange.order_updates; one that was seen changes nothing."""
        # A large batch comes in parts, which have the next of its orders each, by id.
        place = updates.last_sequence, updates.orders[-1].state.order_id if updates.orders else 0
        if place <= self._seen.get(updates.partition, (0, 0)):
            metrics.repeats.labels("order_updates").inc()
            return
        self._seen[updates.partition] = place
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
