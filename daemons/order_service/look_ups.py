"""Tokens and keys in the database. Look-ups that wait share a statement.

One statement is under way at a time, for up to MOST_NAMES names. So however many tokens and keys somebody
makes up, PostgreSQL sees one session at work; and a real one among them waits for two statements at most.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio

from common.admin import token_sha256
from common.core.errors import Busy, ExchangeError, Unauthenticated, Unavailable
from common.db import Pool, is_transient
from common.identity.caller import Caller, SigningKey
from common.identity.networks import read_networks
from common.identity.signed import looks_like_api_key
from common.identity.signing import KeyKind, verifier
from common.identity.vault import Vault, VaultSealed
from common.telemetry import get_logger

MOST_NAMES = 1_000
MOST_WAITING = 20_000

N = TypeVar("N", bytes, str)
Row = Sequence[object]

_LIVE = "{0}.revoked_at IS NULL AND ({0}.expires_at IS NULL OR {0}.expires_at > clock_timestamp())"
_UNIX_US = "coalesce((extract(epoch FROM {}) * 1000000)::bigint, 0)"
# A session ends with its key, and allows no more than that allows now.
_TOKENS = f"""
SELECT t.token_sha256, t.user_id, t.permissions & coalesce(k.permissions, 7), t.api_key,
       coalesce(k.networks, '{{}}'), {_UNIX_US.format("least(t.expires_at, k.expires_at)")}
FROM tokens t LEFT JOIN api_keys k USING (api_key)
WHERE t.token_sha256 = ANY(%s) AND {_LIVE.format("t")} AND (k.api_key IS NULL OR ({_LIVE.format("k")}))
"""  # noqa: S608  # Constants of this file.
_KEYS = f"""
SELECT k.api_key, k.user_id, k.permissions, k.api_key, k.networks, {_UNIX_US.format("k.expires_at")},
       k.kind, k.sealed_secret, k.public_key
FROM api_keys k WHERE k.api_key = ANY(%s) AND {_LIVE.format("k")}
"""  # noqa: S608  # Likewise.

log = get_logger(__name__)


@dataclass(slots=True)
class _Batch(Generic[N]):
    """The names of one statement, and what came of it."""

    names: set[N] = field(default_factory=set)
    rows: Mapping[N, Row] | None = None
    error: ExchangeError | None = None


class LookUps(Generic[N]):
    """Finds rows by name through `find`, one call at a time."""

    def __init__(self, find: Callable[[list[N]], Awaitable[Mapping[N, Row]]]) -> None:
        self._find: Callable[[list[N]], Awaitable[Mapping[N, Row]]] = find
        self._lock = anyio.Lock()
        self._next: _Batch[N] = _Batch()
        self._waiting = 0

    async def row(self, name: N) -> Row | None:
        """None when there is none. Raises Busy, or what `find` raises."""
        if self._waiting >= MOST_WAITING:
            raise Busy("Too many tokens and keys are being looked up.")
        if len(self._next.names) >= MOST_NAMES:
            self._next = _Batch()
        batch = self._next
        batch.names.add(name)
        self._waiting += 1
        try:
            async with self._lock:
                if batch.rows is None and batch.error is None:  # Else somebody has asked for all of us.
                    await self._ask(batch)
        finally:
            self._waiting -= 1
        if batch.error is not None:
            raise type(batch.error)(batch.error.message)
        assert batch.rows is not None
        return batch.rows.get(name)

    async def _ask(self, batch: _Batch[N]) -> None:
        if batch is self._next:
            self._next = _Batch()  # Who comes from here on would not be in the statement.
        try:
            batch.rows = await self._find(list(batch.names))
        except ExchangeError as error:
            batch.error = error


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A live key; `material` is the secret of an HMAC key, the public half of an Ed25519 key."""

    caller: Caller
    kind: KeyKind
    material: bytes = field(repr=False)

    def signing_key(self) -> SigningKey:
        return SigningKey(self.caller, verifier(self.kind, self.material))


class Directory:
    """Who tokens and keys belong to, as the database has it now: nothing is kept."""

    def __init__(self, pool: Pool, vault: Vault) -> None:
        self._pool = pool
        self._vault = vault
        self._tokens: LookUps[bytes] = LookUps(self._find_tokens)
        self._keys: LookUps[str] = LookUps(self._find_keys)

    async def token(self, token: str) -> Caller:
        """Raises Unauthenticated, or Unavailable when nobody can tell."""
        row = await self._tokens.row(token_sha256(token))
        if row is None:
            raise Unauthenticated
        return _caller(row)

    async def key(self, api_key: str) -> FoundKey:
        """Likewise."""
        row = await self._keys.row(api_key) if looks_like_api_key(api_key) else None
        if row is None:
            raise Unauthenticated("Nobody is known by this API key, or it has ended.")
        kind, sealed, public = row[6:9]
        if kind == KeyKind.ED25519:
            assert isinstance(public, bytes)
            return FoundKey(_caller(row), KeyKind.ED25519, public)
        assert isinstance(sealed, bytes)
        try:
            return FoundKey(_caller(row), KeyKind.HMAC, self._vault.open(sealed, api_key))
        except VaultSealed as error:
            log.error("a key cannot be used", api_key=api_key, error=error.message)
            raise Unavailable("This key cannot be checked right now.") from None

    async def signing_key(self, api_key: str) -> SigningKey:
        return (await self.key(api_key)).signing_key()

    async def _find_tokens(self, names: Sequence[bytes]) -> Mapping[bytes, Row]:
        return {row[0]: row for row in await self._rows(_TOKENS, names)}

    async def _find_keys(self, names: Sequence[str]) -> Mapping[str, Row]:
        return {row[0]: row for row in await self._rows(_KEYS, names)}

    async def _rows(self, statement: str, names: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            async with self._pool.connection() as connection:
                return await (await connection.execute(statement.encode(), [names])).fetchall()
        except Exception as error:
            if not is_transient(error):
                raise
            raise Unavailable("Tokens and keys cannot be looked up right now") from error


def _caller(row: Row) -> Caller:
    _, user_id, permissions, key_id, networks, expires_us = row[:6]
    assert isinstance(user_id, int)
    assert isinstance(permissions, int)
    assert isinstance(key_id, str | None)
    assert isinstance(networks, list)
    assert isinstance(expires_us, int)
    return Caller(user_id, permissions, key_id, read_networks(networks), expires_us)
