"""Who is calling.

`Identify` is all that the rest of the gateway knows of identity: signed requests will be another one
of these, chosen by the headers that a call carries. A revoked token works for at most the cache's
time; an unknown one is asked about again soon, because it may just have been made.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from common.core.errors import ExchangeError, Unauthenticated
from gateway.calls import Call

UNKNOWN_CACHE_S = 0.25
CACHE_ENTRIES = 20_000
_BEARER = re.compile(rb"[Bb]earer +([A-Za-z0-9._~+/=-]{1,256})")


class Identify(Protocol):
    """Returns the user's id, which is > 0; raises Unauthenticated, Forbidden, Busy or Unavailable."""

    async def __call__(self, call: Call) -> int: ...


class _Flight:
    """A look-up under way; `user_id` stays None when the task that made it was cancelled."""

    def __init__(self) -> None:
        self.ended = trio.Event()
        self.user_id: int | None = None
        self.error: ExchangeError | None = None

    def result(self) -> int:
        if self.error is not None:
            raise type(self.error)(self.error.message, self.error.details)
        assert self.user_id is not None
        return self.user_id


class BearerIdentity:
    """Identifies by bearer token. Answers are kept for `cache_s`; look-ups of one token share a call."""

    def __init__(self, look_up: Callable[[str], Awaitable[int]], cache_s: float) -> None:
        self._look_up = look_up
        self._cache_s = cache_s
        # SHA-256 of the token -> (until, user id; 0: nobody). Tokens themselves are not kept.
        self._known: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._flights: dict[bytes, _Flight] = {}

    async def __call__(self, call: Call) -> int:
        match = _BEARER.fullmatch(call.header(b"authorization") or b"")
        if match is None:
            raise Unauthenticated("Send the header Authorization: Bearer TOKEN.")
        token = match[1]
        key = hashlib.sha256(token).digest()
        while True:
            until, user_id = self._known.get(key, (0.0, 0))
            if until > trio.current_time():
                if user_id == 0:
                    raise Unauthenticated()
                return user_id
            flight = self._flights.get(key)
            if flight is None:
                return await self._fly(key, token.decode("ascii"))
            await flight.ended.wait()
            if flight.user_id is not None or flight.error is not None:
                return flight.result()

    async def _fly(self, key: bytes, token: str) -> int:
        flight = self._flights[key] = _Flight()
        asked = trio.current_time()  # Before the call: a revocation during it counts from here.
        try:
            flight.user_id = await self._look_up(token)
            self._keep(key, asked + self._cache_s, flight.user_id)
        except Unauthenticated as error:
            flight.error = error
            self._keep(key, asked + min(UNKNOWN_CACHE_S, self._cache_s), 0)
        except ExchangeError as error:
            flight.error = error
        finally:
            del self._flights[key]
            flight.ended.set()
        return flight.result()

    def _keep(self, key: bytes, until: float, user_id: int) -> None:
        self._known[key] = (until, user_id)
        self._known.move_to_end(key)
        while len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)
