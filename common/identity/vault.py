"""Secrets at rest: AES-256-GCM under a master key, and the way from one master key to the next. Pure.

A sealed secret is `version, length of the master key's name, its name, 12 bytes of nonce, ciphertext and
tag`. The tag covers all of it and the name of what it belongs to (an API key's id), so that a secret which
is changed, or moved to another row, cannot be opened.

Does not promise: safety of a master key's 2^32nd secret. Nonces are random, so renew the key before.
"""

import base64
import binascii
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.core.errors import Unavailable

VERSION = 1
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
MOST_KEYS = 2  # The new one, and the old one until everything has been sealed again.
_WORD = re.compile(r"([A-Za-z0-9._-]{1,32}):([A-Za-z0-9+/]{43}=)")


class VaultSealed(Unavailable):
    """The secret cannot be opened: no master key is configured, not this one, or its bytes were changed."""

    code = "VAULT_SEALED"


class BadMasterKey(ValueError):
    """A text that holds no master keys. Its message never repeats the text."""


@dataclass(frozen=True, slots=True)
class MasterKey:
    name: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.key) == KEY_BYTES
        assert 1 <= len(self.name.encode()) <= 32

    def __str__(self) -> str:
        return self.name

    def as_line(self) -> str:
        """As it stands in a file: a secret."""
        return f"{self.name}:{base64.b64encode(self.key).decode()}"


def new_master_key(name: str) -> MasterKey:
    return MasterKey(name, os.urandom(KEY_BYTES))


def read_master_keys(text: str) -> list[MasterKey]:
    """Keys as NAME:BASE64, on lines of their own or between commas, # for comments; the first encrypts.

    Raises BadMasterKey.
    """
    words = [word.strip() for line in text.splitlines() for word in line.partition("#")[0].split(",")]
    keys = [_read_word(number, word) for number, word in enumerate(filter(None, words), 1)]
    if not 1 <= len(keys) <= MOST_KEYS:
        raise BadMasterKey(f"one or {MOST_KEYS} master keys may be live, not {len(keys)}")
    if len({key.name for key in keys}) < len(keys):
        raise BadMasterKey("two master keys have the same name")
    return keys


def _read_word(number: int, word: str) -> MasterKey:
    match = _WORD.fullmatch(word)
    if match is None:
        raise BadMasterKey(f"master key {number} is not NAME:BASE64 of {KEY_BYTES} bytes")
    try:
        return MasterKey(match[1], base64.b64decode(match[2], validate=True))
    except (binascii.Error, AssertionError):
        raise BadMasterKey(f"master key {number} is not NAME:BASE64 of {KEY_BYTES} bytes") from None


class Vault:
    """Seals with the first master key and opens with any. Without keys it does neither, and says so."""

    def __init__(self, keys: Sequence[MasterKey] = ()) -> None:
        self._newest = keys[0].name if keys else ""
        self._ciphers = {key.name: AESGCM(key.key) for key in keys}

    @property
    def usable(self) -> bool:
        return bool(self._ciphers)

    def seal(self, secret: bytes, owner: str) -> bytes:
        """The secret of `owner`, under the first master key; raises VaultSealed when there is none."""
        if not self._newest:
            raise VaultSealed("No master key is configured: EXCHANGE_MASTER_KEYS_FILE")
        head = _head(self._newest)
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[self._newest].encrypt(nonce, secret, head + owner.encode())
        return head + nonce + sealed

    def open(self, sealed: bytes, owner: str) -> bytes:
        """The secret again; raises VaultSealed."""
        name = sealed_under(sealed)
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise VaultSealed("The master key that this secret was sealed under is not configured")
        head = _head(name)
        nonce, rest = sealed[len(head) : len(head) + NONCE_BYTES], sealed[len(head) + NONCE_BYTES :]
        if len(rest) < TAG_BYTES:
            raise VaultSealed("A sealed secret is cut off")
        try:
            return cipher.decrypt(nonce, rest, head + owner.encode())
        except InvalidTag:
            raise VaultSealed("A sealed secret was changed, or belongs to another key") from None

    def is_current(self, sealed: bytes) -> bool:
        """False for what should be sealed again: it lies under another master key than the first."""
        return sealed_under(sealed) == self._newest


def sealed_under(sealed: bytes) -> str:
    """The name of the master key that a secret lies under; raises VaultSealed for what is not sealed."""
    if len(sealed) < 2 or sealed[0] != VERSION or len(sealed) < 2 + sealed[1]:
        raise VaultSealed("This is no sealed secret")
    return sealed[2 : 2 + sealed[1]].decode("utf-8", "replace")


def _head(name: str) -> bytes:
    raw = name.encode()
    return bytes((VERSION, len(raw))) + raw
