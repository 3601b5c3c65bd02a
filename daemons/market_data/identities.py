"""Who the clients are. A token's answer is kept for at most `token_cache_s`, and while a client that came
with it, or with a key's signature, lives, it is asked about again at least every RECHECK_S: whose token or
key is revoked loses the private channels.

When order-service does not answer, nobody new gets in. Those who are in stay for UNCONFIRMED_S: it is
order-service, too, whose updates they hear.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import anyio

from common.core.errors import ExchangeError, Unauthenticated
from common.identity.caller import Caller, SigningKey
from common.identity.permissions import READ
from common.identity.signed import Credentials, SignedRequests
from common.identity.signing import websocket_message
from common.telemetry import get_logger

RECHECK_S = 2.0
UNCONFIRMED_S = 30.0
MAX_RECHECKS = 32  # Calls under way.
MAX_CACHED = 10_000

log = get_logger(__name__)


class Source(Protocol):
    """Order-service, whose answers are those of the moment."""

    async def authenticate(self, token: str) -> Caller: ...
    async def find_key(self, api_key: str) -> SigningKey: ...


class Holder(Protocol):
    """A client that has signed in."""

    address: str

    def revoke(self, why: str) -> None: ...


@dataclass(slots=True)
class _Known:
    """A token or a key: `ask` says who it belongs to now."""

    caller: Caller
    confirmed_s: float
    ask: Callable[[], Awaitable[Caller]]
    holders: set[Holder] = field(default_factory=set)


class Identities:
    """Tokens and keys in use, their users, and who holds them."""

    def __init__(
        self,
        source: Source,
        signed: SignedRequests,
        cache_s: float,
        clock: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._source = source
        self._signed = signed
        self._cache_s = cache_s
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._name_of: dict[Holder, str] = {}

    async def sign_in(self, holder: Holder, token: str) -> int:
        """The user's id; raises Unauthenticated, Forbidden (or a kind of them) or Unavailable.

        What the holder signed in with before is let go.
        """
        name = f"token {token}"
        known = self._known.get(name)
        if known is None or self._clock() - known.confirmed_s > self._cache_s - RECHECK_S / 2:
            asked_s = self._clock()
            ask = partial(self._source.authenticate, token)
            known = self._learn(name, await ask(), asked_s, ask)
        return self._admit(holder, name, known)

    async def sign_in_signed(self, holder: Holder, credentials: Credentials) -> int:
        """The same for a signature over timestamp + "GET" + "/ws"."""
        asked_s = self._clock()
        caller = await self._signed.identify(credentials, websocket_message, holder.address)
        api_key = credentials.api_key
        name = f"key {api_key}"
        # What is known of the key may be as old as the cache: it is confirmed again in time.
        known = self._learn(name, caller, asked_s - self._cache_s, partial(self._ask_key, api_key))
        return self._admit(holder, name, known)

    async def _ask_key(self, api_key: str) -> Caller:
        return (await self._source.find_key(api_key)).caller

    def _learn(
        self, name: str, caller: Caller, asked_s: float, ask: Callable[[], Awaitable[Caller]]
    ) -> _Known:
        known = self._known.setdefault(name, _Known(caller, asked_s, ask))
        known.caller, known.confirmed_s = caller, max(asked_s, known.confirmed_s)
        return known

    def _admit(self, holder: Holder, name: str, known: _Known) -> int:
        known.caller.check(READ, holder.address)
        self.sign_out(holder)
        known.holders.add(holder)
        self._known[name] = known
        self._name_of[holder] = name
        if len(self._known) > MAX_CACHED:
            self._forget_unused()
        return known.caller.user_id

    def sign_out(self, holder: Holder) -> None:
        name = self._name_of.pop(holder, None)
        if name is not None and name in self._known:
            self._known[name].holders.discard(holder)

    async def run(self) -> None:
        """Ask about the tokens and keys in use again and again, until cancelled."""
        limit = anyio.CapacityLimiter(MAX_RECHECKS)
        while True:
            began_s = self._clock()
            async with anyio.create_task_group() as group:
                for name, known in list(self._known.items()):
                    if known.holders:
                        group.start_soon(self._recheck, name, known, limit)
            self._forget_unused()
            # The round itself is part of the interval; half of it is left for a slow one.
            await anyio.sleep(max(0.05, RECHECK_S / 2 - (self._clock() - began_s)))

    async def _recheck(self, name: str, known: _Known, limit: anyio.CapacityLimiter) -> None:
        async with limit:
            asked_s = self._clock()
            try:
                caller = await known.ask()
            except Unauthenticated:
                self._revoke(name, known, "the token or key is no longer valid")
            except ExchangeError as error:
                if self._clock() - known.confirmed_s > UNCONFIRMED_S:
                    log.warning("a token or key could not be confirmed", error=error.message)
                    self._revoke(name, known, "the token or key could not be confirmed")
            else:
                if caller.user_id != known.caller.user_id or not caller.permissions & READ:
                    self._revoke(name, known, "the token or key allows this no longer")
                else:
                    known.caller, known.confirmed_s = caller, asked_s

    def _revoke(self, name: str, known: _Known, why: str) -> None:
        self._known.pop(name, None)
        for holder in list(known.holders):
            self._name_of.pop(holder, None)
            holder.revoke(why)
        known.holders.clear()

    def _forget_unused(self) -> None:
        now_s = self._clock()
        stale = [
            name
            for name, known in self._known.items()
            if not known.holders
            and (now_s - known.confirmed_s > self._cache_s or len(self._known) > MAX_CACHED)
        ]
        for name in stale:
            del self._known[name]
