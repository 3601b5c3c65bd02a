"""Where the master keys come from: a file or the environment's own words, or in local mode one that is made.

Only order-service, and commands of the operator that seal, ever read them.
"""

import os
import stat
from pathlib import Path

from common.config import BadSetting, Settings
from common.identity.vault import BadMasterKey, Vault, new_master_key, read_master_keys

FILE_NAME = "master.key"
_HEADER = (
    "# Master keys of this exchange: NAME:BASE64, the first encrypts. Keep them apart from the database.\n"
)


def vault_of(settings: Settings) -> Vault:
    """The vault that the settings describe, an unusable one when they name no key; raises BadSetting."""
    if settings.master_keys_file and settings.master_keys:
        raise BadSetting("Give EXCHANGE_MASTER_KEYS_FILE or EXCHANGE_MASTER_KEYS, not both")
    if settings.master_keys_file:
        return _read("EXCHANGE_MASTER_KEYS_FILE", _text_of(Path(settings.master_keys_file)))
    if settings.master_keys:
        return _read("EXCHANGE_MASTER_KEYS", settings.master_keys)
    return Vault()


def with_own_master_key(settings: Settings, folder: Path) -> Settings:
    """For local mode: settings that name a key in `folder`, made there, mode 0600, when there is none.

    Settings that name keys already are given back as they are. Raises BadSetting.
    """
    if settings.master_keys_file or settings.master_keys:
        return settings
    path = folder / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError:
        pass
    except OSError as error:
        raise BadSetting(f"EXCHANGE_DATA: no master key can be made in {folder}: {error.strerror}") from None
    else:
        with os.fdopen(descriptor, "w") as file:
            file.write(_HEADER + new_master_key("local").as_line() + "\n")
    return settings.model_copy(update={"master_keys_file": str(path)})


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeError) as error:
        raise BadSetting(f"EXCHANGE_MASTER_KEYS_FILE cannot be read: {type(error).__name__}") from None


def _read(setting: str, text: str) -> Vault:
    try:
        return Vault(read_master_keys(text))
    except BadMasterKey as error:
        raise BadSetting(f"{setting}: {error}") from None
