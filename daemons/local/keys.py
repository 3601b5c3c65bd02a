"""`exchange key`: API keys, and the master keys that seal their secrets.

It seals with the master keys of the settings; without any, with those of the local exchange's own folder.
To change the master key: `new-master` makes a line for the file; put it first, restart order-service, run
`rotate-master`, and take the old line away.
"""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common import keys
from common.acts_of_keys import KeyActs
from common.audit_log import CLI, Actor
from common.config import Settings
from common.db import connect
from common.identity import permissions
from common.identity.master_keys import FILE_NAME, vault_of
from common.identity.vault import Vault, new_master_key
from common.keys import ApiKey, NewKey
from daemons.local.operator import quiet, reachable_postgres, user_name
from daemons.local.process import LocalError, Progress


async def run_key(arguments: argparse.Namespace, settings: Settings, progress: Progress) -> None:
    if arguments.action == "new-master":
        progress(new_master_key(arguments.name).as_line())
        return
    async with reachable_postgres(settings, quiet) as url, connect(url, "exchange key") as connection:
        acts = KeyActs(connection, Actor(user_name(), CLI), _vault(settings))
        match arguments.action:
            case "list":
                for one in await keys.list_keys(connection, arguments.user):
                    progress(_line(one))
            case "create":
                made = await acts.create(
                    arguments.user_id,
                    label=arguments.label,
                    allowed=arguments.permissions.upper().split(","),
                    networks=arguments.network,
                    expires_at=_in_days(arguments.days),
                    public_key=_public_key(arguments.public_key),
                )
                _tell(made, progress)
            case "rotate":
                made = await acts.rotate(
                    arguments.api_key,
                    overlap_s=arguments.overlap,
                    public_key=_public_key(arguments.public_key),
                )
                _tell(made, progress)
            case "revoke":
                revoked = await acts.revoke(arguments.api_key)
                progress(f"The key {arguments.api_key} {'has ended' if revoked else 'had ended before'}.")
            case "rotate-master":
                count = await acts.rotate_master()
                progress(f"{count} secrets are sealed under the first master key now; before under another.")


def _vault(settings: Settings) -> Vault:
    own = Path(settings.data) / FILE_NAME
    if not (settings.master_keys_file or settings.master_keys) and own.exists():
        settings = settings.model_copy(update={"master_keys_file": str(own)})
    return vault_of(settings)


def _tell(made: NewKey, progress: Progress) -> None:
    progress(made.api_key)
    if made.secret is not None:
        progress(made.secret)


def _line(one: ApiKey) -> str:
    now = datetime.now(UTC)
    state = "live"
    if one.revoked_at is not None:
        state = f"revoked {one.revoked_at:%F}"
    elif one.expires_at is not None:
        state = f"{'expires' if one.expires_at > now else 'expired'} {one.expires_at:%F %H:%M}"
    parts = [one.api_key, f"user {one.user_id}", one.kind.name, ",".join(permissions.names(one.permissions))]
    parts += [state, ",".join(one.networks) or "anywhere", one.label]
    return "  ".join(part for part in parts if part)


def _in_days(days: int | None) -> datetime | None:
    try:
        return datetime.now(UTC) + timedelta(days=days) if days is not None else None
    except OverflowError:
        raise LocalError(f"{days} days are too many") from None


def _public_key(path: str | None) -> str:
    """The text of the file; "" for none."""
    if path is None:
        return ""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeError) as error:
        raise LocalError(f"The public key {path} cannot be read: {type(error).__name__}") from None
