"""What order-service said of tokens and keys, kept for a moment; for Trio and asyncio.

An answer is believed for `cache_s` from the moment at which it was asked for, and not beyond its own end, so
that a revocation is felt within `cache_s`. "Nobody" is kept too, for a shorter time, because a token may just
have been made. Look-ups of one name share a call. All of it is in memory only.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import anyio

from common.core.errors import ExchangeError, Unauthenticated

UNKNOWN_CACHE_S = 0.25
CACHE_ENTRIES = 20_000


class Ends(Protocol):
    """Something that ends at a Unix time in microseconds; 0: never."""

    @property
    def expires_us(self) -> int: ...


V = TypeVar("V", bound=Ends)


class _Flight(Generic[V]):
    """A look-up under way; `value` stays None when the task that made it was cancelled."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.value: V | None = None
        self.error: ExchangeError | None = None

    def result(self) -> V:
        if self.error is not None:
            raise type(self.error)(self.error.message, self.error.details)
        assert self.value is not None
        return self.value


class Kept(Generic[V]):
    """Answers of `look_up`, which raises Unauthenticated for nobody, by name."""

    def __init__(
        self,
        look_up: Callable[[str], Awaitable[V]],
        cache_s: float,
        clock: Callable[[], float] = anyio.current_time,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._look_up = look_up
        self._cache_s = cache_s
        self._clock = clock
        self._unix_s = unix_s
        # Name -> until when, and the answer; None: nobody.
        self._known: OrderedDict[bytes, tuple[float, V | None]] = OrderedDict()
        self._flights: dict[bytes, _Flight[V]] = {}

    def peek(self, name: bytes) -> V | None:
        """The answer that `find` would give without asking anybody, if there is one; costs no await."""
        known = self._known.get(name)
        return known[1] if known is not None and known[0] > self._clock() else None

    async def find(self, name: bytes, credential: str) -> V:
        """What is known of `name`, or what `look_up` says of its `credential`, which is not kept.

        Raises Unauthenticated, or what else the look-up raises.
        """
        while True:
            known = self._known.get(name)
            if known is not None and known[0] > self._clock():
                if known[1] is None:
                    raise Unauthenticated
                return known[1]
            flight = self._flights.get(name)
            if flight is None:
                return await self._fly(name, credential)
            await flight.ended.wait()
            if flight.value is not None or flight.error is not None:
                return flight.result()

    def forget(self, name: bytes) -> None:
        """Ask again next time; a look-up that is under way is not affected."""
        self._known.pop(name, None)

    async def _fly(self, name: bytes, credential: str) -> V:
        flight: _Flight[V] = _Flight()
        self._flights[name] = flight
        asked_s = self._clock()  # Before the call: a revocation during it counts from here.
        try:
            flight.value = await self._look_up(credential)
            until_s = min(asked_s + self._cache_s, self._ends_s(flight.value))
            self._keep(name, until_s, flight.value)
        except Unauthenticated as error:
            flight.error = error
            self._keep(name, asked_s + min(UNKNOWN_CACHE_S, self._cache_s), None)
        except ExchangeError as error:
            flight.error = error
        finally:
            del self._flights[name]
            flight.ended.set()
        return flight.result()

    def _ends_s(self, value: V) -> float:
        """By our own clock."""
        if not value.expires_us:
            return math.inf
        return self._clock() + value.expires_us / 1e6 - self._unix_s()

    def _keep(self, name: bytes, until_s: float, value: V | None) -> None:
        self._known[name] = (until_s, value)
        self._known.move_to_end(name)
        while len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)
