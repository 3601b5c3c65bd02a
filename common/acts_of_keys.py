"""What operators do to API keys, each act with its row of the audit log: as `acts`, with the vault."""

from collections.abc import Sequence
from datetime import datetime

from common import keys
from common.audit_log import DONE, REPEATED, Act, Actor, recorded
from common.db import Connection
from common.identity import permissions
from common.identity.signing import read_public_key
from common.identity.vault import Vault
from common.keys import NewKey
from common.money import check_text

MAX_KEY = 64


class KeyActs:
    """The acts of one operator on one session, which is in no transaction. All raise ExchangeErrors."""

    def __init__(self, connection: Connection, actor: Actor, vault: Vault) -> None:
        self._connection = connection
        self._actor = actor
        self._vault = vault

    async def create(
        self,
        user_id: int,
        *,
        label: str = "",
        allowed: Sequence[str] = ("READ", "TRADE"),
        networks: Sequence[str] = (),
        expires_at: datetime | None = None,
        public_key: str = "",
    ) -> NewKey:
        """`public_key`: of an Ed25519 key, as text; empty: an HMAC key, whose secret is given this once."""
        act = Act("key create", f"user {user_id}", {"label": label, "permissions": list(allowed)})
        act.arguments |= {"networks": list(networks), "ed25519": bool(public_key)}
        act.arguments |= {"expires_at": expires_at.isoformat() if expires_at else None}
        async with recorded(self._connection, self._actor, act):
            made = await keys.create_key(
                self._connection,
                self._vault,
                user_id,
                label=label,
                permissions=permissions.from_names(allowed),
                networks=networks,
                expires_at=expires_at,
                public_key=read_public_key(public_key) if public_key else None,
            )
            act.arguments |= {"user": user_id}
            act.target = f"key {made.api_key}"
        return made

    async def revoke(self, api_key: str) -> bool:
        """The key and its sessions end, within seconds; False when it had been revoked before."""
        async with recorded(self._connection, self._actor, Act("key revoke", f"key {api_key}")) as act:
            check_text("api_key", api_key, MAX_KEY)
            revoked = await keys.revoke_key(self._connection, api_key)
            act.outcome = DONE if revoked else REPEATED
        return revoked

    async def rotate(self, api_key: str, *, overlap_s: float = 0.0, public_key: str = "") -> NewKey:
        """A new key in its place, while the old one works for `overlap_s` more."""
        act = Act("key rotate", f"key {api_key}", {"overlap_s": str(overlap_s)})
        async with recorded(self._connection, self._actor, act):
            check_text("api_key", api_key, MAX_KEY)
            made = await keys.rotate_key(
                self._connection,
                self._vault,
                api_key,
                overlap_s=overlap_s,
                public_key=read_public_key(public_key) if public_key else None,
            )
            act.arguments |= {"new_key": made.api_key}
        return made

    async def rotate_master(self) -> int:
        """Seal every secret under the first master key; gives how many were under another.

        All or none: when one cannot be opened, VaultSealed, and everything is as it was.
        """
        async with recorded(self._connection, self._actor, Act("key rotate-master", "all keys")) as act:
            count = await keys.reseal_keys(self._connection, self._vault)
            act.arguments |= {"sealed_again": count}
            act.outcome = DONE if count else REPEATED
        return count
