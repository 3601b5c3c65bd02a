"""API keys: made, listed, revoked, renewed, and sealed again under a new master key.

Acts of the operator (and of local mode's test users). A key's secret is given once, when the key is made:
the database has it sealed, or, for Ed25519, nobody here ever has it. Daemons notice a change within
`token_cache_s`.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.core.errors import Conflict, Malformed, NotFound
from common.db import Connection
from common.identity.networks import read_networks
from common.identity.permissions import READ, TRADE
from common.identity.signing import KeyKind, check_public_key
from common.identity.vault import Vault, VaultSealed

MOST_KEYS = 100  # Live ones of a user.
MAX_LABEL = 100
_RESEAL_AT_ONCE = 500

_SEALED = """
SELECT api_key, sealed_secret FROM api_keys WHERE api_key > %s AND sealed_secret IS NOT NULL
ORDER BY api_key LIMIT %s FOR NO KEY UPDATE
"""
_COLUMNS = "api_key, user_id, label, kind, permissions, networks, created_at, expires_at, revoked_at"
_LIVE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())"

_REVOKE_ALL = """
UPDATE api_keys SET revoked_at = clock_timestamp() WHERE user_id = %s AND revoked_at IS NULL
    AND (expires_at IS NULL OR expires_at > clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `networks` are CIDRs, none meaning every address."""

    api_key: str
    user_id: int
    label: str
    kind: KeyKind
    permissions: int
    networks: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What its owner needs, once. `secret` is None for Ed25519: its owner made the pair."""

    api_key: str
    kind: KeyKind
    permissions: int
    expires_at: datetime | None
    secret: str | None = field(repr=False)


async def create_key(
    connection: Connection,
    vault: Vault,
    user_id: int,
    *,
    label: str = "",
    permissions: int = READ | TRADE,
    networks: Sequence[str] = (),
    expires_at: datetime | None = None,
    public_key: bytes | None = None,
) -> NewKey:
    """A new key of the user: Ed25519 with a `public_key` (32 bytes, see `read_public_key`), else HMAC-SHA256.

    Raises NotFound for a user who is not there, Malformed, Conflict when the user has too many live keys,
    and VaultSealed when an HMAC key is wanted and no master key is configured.
    """
    allowed = [str(network) for network in read_networks(networks)]
    _check(label, expires_at)
    api_key = f"ak_{secrets.token_hex(16)}"
    secret: str | None = None
    kind, sealed = KeyKind.ED25519, None
    if public_key is None:
        kind, secret = KeyKind.HMAC, secrets.token_urlsafe(32)
        sealed = vault.seal(secret.encode(), api_key)
    else:
        check_public_key(public_key)
    async with connection.transaction():
        await _check_user(connection, user_id)
        await connection.execute(
            "INSERT INTO api_keys (api_key, user_id, label, kind, sealed_secret, public_key, permissions,"
            " networks, expires_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [api_key, user_id, label, kind, sealed, public_key, permissions, allowed, expires_at],
        )
    return NewKey(api_key, kind, permissions, expires_at, secret)


def _check(label: str, expires_at: datetime | None) -> None:
    if len(label) > MAX_LABEL or not label.isprintable():
        raise Malformed(f"A label has at most {MAX_LABEL} printable characters.", {"label": "not valid"})
    if expires_at is not None and (expires_at.tzinfo is None or expires_at <= datetime.now(UTC)):
        raise Malformed("A key expires in the future, at a time with a zone.", {"expires_at": "not valid"})


async def _check_user(connection: Connection, user_id: int) -> None:
    """Under the user's lock, so that the count holds; raises NotFound or Conflict."""
    cursor = await connection.execute(
        "SELECT FROM users WHERE user_id = %s AND user_id > 0 FOR NO KEY UPDATE", [user_id]
    )
    if await cursor.fetchone() is None:
        raise NotFound(f"There is no user {user_id}")
    cursor = await connection.execute(
        f"SELECT count(*) FROM api_keys WHERE user_id = %s AND {_LIVE}",  # noqa: S608  # Constants.
        [user_id],
    )
    row = await cursor.fetchone()
    if row is not None and int(row[0]) >= MOST_KEYS:
        raise Conflict(f"User {user_id} has {MOST_KEYS} live keys already: revoke one")


async def list_keys(connection: Connection, user_id: int | None = None) -> list[ApiKey]:
    """The keys of one user, or of all; oldest first, ended ones too."""
    cursor = await connection.execute(
        f"SELECT {_COLUMNS} FROM api_keys"  # noqa: S608  # Constants.
        " WHERE %(user)s::bigint IS NULL OR user_id = %(user)s ORDER BY created_at, api_key",
        {"user": user_id},
    )
    return [_api_key(row) for row in await cursor.fetchall()]


async def find_key(connection: Connection, api_key: str) -> ApiKey:
    """Raises NotFound."""
    cursor = await connection.execute(
        f"SELECT {_COLUMNS} FROM api_keys WHERE api_key = %s",  # noqa: S608  # Constants.
        [api_key],
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("There is no such API key", {"api_key": api_key[:64]})
    return _api_key(row)


def _api_key(row: tuple[object, ...]) -> ApiKey:
    api_key, user_id, label, kind, permissions, networks, created_at, expires_at, revoked_at = row
    assert isinstance(user_id, int)
    assert isinstance(kind, int)
    assert isinstance(permissions, int)
    assert isinstance(networks, list)
    assert isinstance(created_at, datetime)
    assert isinstance(expires_at, datetime | None)
    assert isinstance(revoked_at, datetime | None)
    return ApiKey(
        str(api_key), user_id, str(label), KeyKind(kind), permissions, tuple(networks),
        created_at, expires_at, revoked_at,
    )  # fmt: skip


async def revoke_key(connection: Connection, api_key: str) -> bool:
    """End a key and, with it, its sessions; False when it had been revoked before. Raises NotFound."""
    cursor = await connection.execute(
        "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE api_key = %s AND revoked_at IS NULL",
        [api_key],
    )
    if cursor.rowcount == 0:
        await find_key(connection, api_key)
    return cursor.rowcount == 1


async def revoke_keys(connection: Connection, user_id: int) -> int:
    """Every key of the user ends, and with them their sessions; how many were live."""
    cursor = await connection.execute(_REVOKE_ALL, [user_id])
    return cursor.rowcount


async def rotate_key(
    connection: Connection,
    vault: Vault,
    api_key: str,
    *,
    overlap_s: float = 0.0,
    public_key: bytes | None = None,
) -> NewKey:
    """A new key in place of a live one, which works for `overlap_s` more: same user, label, permissions,
    networks, kind and end. An Ed25519 key needs its new `public_key`.

    Raises NotFound, Conflict for a key that has ended, and what `create_key` raises.
    """
    async with connection.transaction():
        await connection.execute("SELECT FROM api_keys WHERE api_key = %s FOR NO KEY UPDATE", [api_key])
        old = await find_key(connection, api_key)
        now = datetime.now(UTC)
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise Conflict("This key has ended", {"api_key": api_key})
        if (public_key is None) != (old.kind is KeyKind.HMAC):
            raise Malformed(
                "The new key is of the old one's kind: an Ed25519 key needs a public key, an HMAC key none.",
                {"public_key": "missing" if public_key is None else "not wanted"},
            )
        if overlap_s <= 0:
            await revoke_key(connection, api_key)
        else:
            await connection.execute(
                "UPDATE api_keys SET expires_at = least(expires_at, %s) WHERE api_key = %s",
                [now + timedelta(seconds=overlap_s), api_key],
            )
        return await create_key(
            connection, vault, old.user_id,
            label=old.label, permissions=old.permissions, networks=old.networks,
            expires_at=old.expires_at, public_key=public_key,
        )  # fmt: skip


async def reseal_keys(connection: Connection, vault: Vault) -> int:
    """Seal every secret again that lies under another master key than the first; gives how many there were.

    May be run at any time, and again after it was interrupted. When it has ended, the old master key may be
    taken away. Raises VaultSealed when one of them cannot be opened: all the others have been sealed by then.
    """
    count, after = 0, ""
    unopened: VaultSealed | None = None
    while True:
        async with connection.transaction():
            cursor = await connection.execute(_SEALED, [after, _RESEAL_AT_ONCE])
            rows = await cursor.fetchall()
            for api_key, sealed in rows:
                try:
                    count += await _reseal(connection, vault, api_key, sealed)
                except VaultSealed as error:
                    unopened = error
        if not rows:
            break
        after = rows[-1][0]
    if unopened is not None:
        raise unopened
    return count


async def _reseal(connection: Connection, vault: Vault, api_key: str, sealed: bytes) -> bool:
    """False when it lies under the first master key already."""
    if vault.is_current(sealed):
        return False
    fresh = vault.seal(vault.open(sealed, api_key), api_key)
    await connection.execute("UPDATE api_keys SET sealed_secret = %s WHERE api_key = %s", [fresh, api_key])
    return True
