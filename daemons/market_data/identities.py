"""Who the clients are. A token's answer is kept for at most `token_cache_s`, and while a client that used
it lives, the token is asked about again at least every RECHECK_S: a revoked one loses its private channels.

When order-service does not answer, nobody new gets in. Those who are in stay for UNCONFIRMED_S: it is
order-service, too, whose updates they hear.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio

from common.core.errors import ExchangeError, Unauthenticated
from common.telemetry import get_logger

RECHECK_S = 2.0
UNCONFIRMED_S = 30.0
MAX_RECHECKS = 32  # Calls under way.
MAX_CACHED = 10_000

log = get_logger(__name__)


class Authenticator(Protocol):
    async def authenticate(self, token: str) -> int: ...


class Holder(Protocol):
    """A client that has signed in."""

    def revoke(self, why: str) -> None: ...


@dataclass(slots=True)
class _Known:
    user_id: int
    confirmed_s: float
    holders: set[Holder] = field(default_factory=set)


class Identities:
    """Tokens in use, their users, and who holds them."""

    def __init__(
        self, source: Authenticator, cache_s: float, clock: Callable[[], float] = anyio.current_time
    ) -> None:
        self._source = source
        self._cache_s = cache_s
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._token_of: dict[Holder, str] = {}

    async def sign_in(self, holder: Holder, token: str) -> int:
        """The user's id; raises Unauthenticated or Unavailable. The holder's former token is let go."""
        known = self._known.get(token)
        if known is None or self._clock() - known.confirmed_s > self._cache_s:
            asked_s = self._clock()
            user_id = await self._source.authenticate(token)
            known = self._known.setdefault(token, _Known(user_id, asked_s))
            known.user_id, known.confirmed_s = user_id, asked_s
        self.sign_out(holder)
        known.holders.add(holder)
        self._known[token] = known
        self._token_of[holder] = token
        if len(self._known) > MAX_CACHED:
            self._forget_unused()
        return known.user_id

    def sign_out(self, holder: Holder) -> None:
        token = self._token_of.pop(holder, None)
        if token is not None and token in self._known:
            self._known[token].holders.discard(holder)

    async def run(self) -> None:
        """Ask about the tokens in use again and again, until cancelled."""
        limit = anyio.CapacityLimiter(MAX_RECHECKS)
        while True:
            began_s = self._clock()
            async with anyio.create_task_group() as group:
                for token, known in list(self._known.items()):
                    if known.holders:
                        group.start_soon(self._recheck, token, known, limit)
            self._forget_unused()
            # The round itself is part of the interval; half of it is left for a slow one.
            await anyio.sleep(max(0.05, RECHECK_S / 2 - (self._clock() - began_s)))

    async def _recheck(self, token: str, known: _Known, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            asked_s = self._clock()
            try:
                user_id = await self._source.authenticate(token)
            except Unauthenticated:
                self._revoke(token, known, "the token is no longer valid")
            except ExchangeError as error:
                if self._clock() - known.confirmed_s > UNCONFIRMED_S:
                    log.warning("a token could not be confirmed", error=error.message)
                    self._revoke(token, known, "the token could not be confirmed")
            else:
                if user_id != known.user_id:
                    self._revoke(token, known, "the token is somebody else's now")
                else:
                    known.confirmed_s = asked_s

    def _revoke(self, token: str, known: _Known, why: str) -> None:
        self._known.pop(token, None)
        for holder in list(known.holders):
            self._token_of.pop(holder, None)
            holder.revoke(why)
        known.holders.clear()

    def _forget_unused(self) -> None:
        now_s = self._clock()
        stale = [
            token
            for token, known in self._known.items()
            if not known.holders
            and (now_s - known.confirmed_s > self._cache_s or len(self._known) > MAX_CACHED)
        ]
        for token in stale:
            del self._known[token]
