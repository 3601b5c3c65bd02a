"""One channel of a stream, as this client keeps it: does a message follow the last one, and who hears it.

Pure: a decision returns what to do, `stream` does it.
"""

from exchange_client.book import OrderBook
from exchange_client.errors import ExchangeError
from exchange_client.events import PRIVATE, DepthEvent, Event
from exchange_client.subscription import Subscription


class Channel:
    """`sequence` None: a snapshot is awaited, and nothing else counts."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.private = name in PRIVATE
        self.sequence: int | None = None
        self.book: OrderBook | None = None
        self._listeners: dict[Subscription, bool] = {}  # True: it has had a snapshot.

    @property
    def wanted(self) -> bool:
        return bool(self._listeners) or self.book is not None

    def join(self, listener: Subscription) -> None:
        """Or begin again: it hears nothing before the next snapshot."""
        self._listeners[listener] = False

    def leave(self, listener: Subscription) -> None:
        self._listeners.pop(listener, None)

    def lose(self) -> None:
        """Something may have been missed."""
        self.sequence = None
        if self.book is not None:
            self.book.lose()

    def accept(self, event: Event) -> bool:
        """Whether the event follows what is known. False: if `sequence` is not None there is a gap."""
        if not event.snapshot and (self.sequence is None or event.previous != self.sequence):
            return False
        self.sequence = event.sequence
        if self.book is not None and isinstance(event, DepthEvent):
            self.book.apply(event.sequence, event.bids, event.asks, snapshot=event.snapshot)
        return True

    def tell(self, event: Event, missed: list[Event] | None = None) -> None:
        """Give an accepted event to all who listen. `missed`: in place of this snapshot, those who have had
        one are given what they do not know yet."""
        for listener, begun in list(self._listeners.items()):
            if event.snapshot and begun and missed is not None:
                for each in missed:
                    listener.offer(each)
            elif event.snapshot or begun:
                self._listeners[listener] = True
                listener.offer(event)

    def fail(self, error: ExchangeError) -> None:
        """The exchange does not give this channel: those who listen are told, and forgotten."""
        if self.book is not None:
            self.book.fail(error)
        for listener in list(self._listeners):
            listener.fail(error)
