"""What happened on the private channels while the stream was interrupted.

A snapshot shows the live orders and the last hundred fills. What it does not show is asked for over HTTP: the
orders that ended meanwhile, and older fills. Does not promise to find an order that was placed more than
SLACK before the last update that was heard and not one of whose own updates was, nor fills of a market that
settled them, late, behind a hundred newer ones of others. Each order that ended costs a request: after an
interruption in which thousands ended, that takes its time.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Protocol

from exchange_client.errors import OrderNotFound
from exchange_client.events import Event, FillsEvent, OrdersEvent, OrderUpdate
from exchange_client.pages import Pages
from exchange_client.values import Fill, Order

SLACK = timedelta(seconds=60)
REMEMBERED = 5_000


class Asked(Protocol):
    """The part of `Exchange` that is asked."""

    async def order(self, order_id: str) -> Order: ...
    def orders(self, *, since: datetime) -> Pages[Order]: ...
    def fills(self) -> Pages[Fill]: ...
    async def time(self) -> datetime: ...


class Recent:
    """The keys that were seen last, at most REMEMBERED."""

    def __init__(self) -> None:
        self._keys: OrderedDict[object, None] = OrderedDict()

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def add(self, key: object) -> None:
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > REMEMBERED:
            self._keys.popitem(last=False)


class Orders:
    """The user's orders as the stream has told them."""

    def __init__(self, exchange: Asked) -> None:
        self._exchange = exchange
        self._live: set[str] = set()
        self._ended = Recent()
        self._heard: datetime | None = None  # By the exchange's clock; None: nothing yet.

    def take(self, event: OrdersEvent) -> None:
        """An update."""
        for order in event.orders:
            self._note(order)

    async def take_snapshot(self, event: OrdersEvent) -> list[Event]:
        """What is to be told to those who knew the state before: what ended meanwhile, then the snapshot."""
        if self._heard is None:
            self._heard = await self._exchange.time()
            missed = []
        else:
            missed = await self._missed({order.order_id for order in event.orders}, self._heard - SLACK)
        self._live.clear()
        for order in [*missed, *event.orders]:
            self._note(order)
        if not missed:
            return [event]
        told = OrdersEvent(
            channel=event.channel,
            snapshot=False,
            sequence=event.sequence,
            previous=event.previous,
            orders=missed,
        )
        return [told, event]

    async def _missed(self, live: set[str], since: datetime) -> list[OrderUpdate]:
        """Oldest change first."""
        ended = []
        for order_id in self._live - live:
            try:
                order = await self._exchange.order(order_id)
            except OrderNotFound:
                continue
            if not order.status.live:  # A snapshot shows only so many.
                ended.append(order)
        async for order in self._exchange.orders(since=since):
            known = order.order_id in self._live or order.order_id in self._ended
            if not (known or order.status.live):  # One that is live is in the snapshot, or told of soon.
                ended.append(order)
        return sorted((OrderUpdate.of(order) for order in ended), key=lambda update: update.time)

    def _note(self, order: OrderUpdate) -> None:
        assert self._heard is not None
        self._heard = max(self._heard, order.time)
        if order.status.live:
            self._live.add(order.order_id)
        else:
            self._live.discard(order.order_id)
            self._ended.add(order.order_id)


class Fills:
    """The user's fills as the stream has told them: each once."""

    def __init__(self, exchange: Asked) -> None:
        self._exchange = exchange
        self._seen = Recent()
        self._begun = False

    def take(self, event: FillsEvent) -> None:
        """An update."""
        for fill in event.fills:
            self._seen.add(_key(fill))

    async def take_snapshot(self, event: FillsEvent) -> list[Event]:
        """What is to be told to those who knew the state before: the fills that they do not know."""
        begun, self._begun = self._begun, True
        missed = await self._missed(event.fills) if begun else []
        for fill in [*event.fills, *missed]:
            self._seen.add(_key(fill))
        if not missed:
            return []
        return [
            FillsEvent(
                channel=event.channel,
                snapshot=False,
                sequence=event.sequence,
                previous=event.previous,
                fills=missed,
            )
        ]

    async def _missed(self, shown: list[Fill]) -> list[Fill]:
        """Oldest first. When all that is shown is new, older ones may be: pages, back to a known one."""
        missed = [fill for fill in shown if _key(fill) not in self._seen]
        if not missed or len(missed) < len(shown):
            return missed
        newer = {_key(fill) for fill in shown}
        async for fill in self._exchange.fills():
            if _key(fill) in self._seen:
                break
            if _key(fill) not in newer:
                missed.insert(0, fill)
        return sorted(missed, key=lambda fill: fill.time)


def _key(fill: Fill) -> tuple[str, str, str]:
    """trade_id counts within a market, and a trade has two orders."""
    return fill.symbol, fill.trade_id, fill.order_id
