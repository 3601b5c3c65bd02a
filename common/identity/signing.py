"""What is signed, and with what: the bytes, the two kinds of keys, and whether a signature fits. Pure.

The bytes of every request begin with its timestamp, as it was sent (Unix time in milliseconds, decimal):

    HTTP        timestamp + METHOD + path?query + body      path and query as they stand in the request line
    WebSocket   timestamp + "GET" + "/ws"                   of the `auth` message
    gRPC        timestamp + "GRPC" + "/package.Service/Method"

A call's messages are NOT signed on gRPC: a stream has no end that could be signed before it begins. Such a
signature lets its caller in and vouches for nothing else; TLS keeps the messages whole.

    HMAC-SHA256   the key is the secret's text, as UTF-8; the signature is 64 hexadecimal digits
    Ed25519       the signature is 64 bytes, as hexadecimal digits or as base64
"""

import base64
import binascii
import hmac
import re
from enum import IntEnum
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.core.errors import Malformed, SignatureWrong

PUBLIC_KEY_BYTES = 32
_HEX = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{128}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{86}(?:==)?")


class KeyKind(IntEnum):
    """As it stands in the database and on the wire."""

    HMAC = 1
    ED25519 = 2


class Verifier(Protocol):
    """One key's half of the check."""

    def verify(self, message: bytes, signature: bytes) -> bool: ...


class HmacKey:
    """Verifies, and signs, with a shared secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self._secret, message, "sha256")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """In a time that does not tell how much of the signature fits."""
        return hmac.compare_digest(self.sign(message), signature)


class Ed25519Key:
    """Verifies with the public half. Raises ValueError for 32 bytes that are no public key."""

    def __init__(self, public_key: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(public_key)

    def verify(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def verifier(kind: int, material: bytes) -> Verifier:
    """For a key of this kind: `material` is the secret of the one, the public half of the other."""
    return HmacKey(material) if kind == KeyKind.HMAC else Ed25519Key(material)


def http_message(timestamp: bytes, method: bytes, target: bytes, body: bytes) -> bytes:
    """`target` is path?query as sent."""
    return b"".join((timestamp, method, target, body))


def websocket_message(timestamp: bytes) -> bytes:
    return timestamp + b"GET/ws"


def grpc_message(timestamp: bytes, method: str) -> bytes:
    """`method` is the full name, such as /exchange.v1.Orders/Submit."""
    return b"".join((timestamp, b"GRPC", method.encode()))


def read_signature(text: str) -> bytes:
    """The bytes of a signature, so that two spellings of one are the same; raises SignatureWrong."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE64.fullmatch(text):
        return base64.b64decode(text[:86] + "==")
    raise SignatureWrong(
        "A signature is hexadecimal (HMAC-SHA256: 64 digits, Ed25519: 128), or for Ed25519 base64."
    )


def read_public_key(text: str) -> bytes:
    """An Ed25519 public key from PEM, 64 hexadecimal digits, or base64 of its 32 bytes; raises Malformed."""
    text = text.strip()
    try:
        if text.startswith("-----BEGIN PUBLIC KEY-----"):
            loaded = serialization.load_pem_public_key(text.encode())
            if not isinstance(loaded, Ed25519PublicKey):
                raise ValueError("another kind of key")
            raw = loaded.public_bytes_raw()
        elif len(text) == 2 * PUBLIC_KEY_BYTES:
            raw = bytes.fromhex(text)
        else:
            raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise _no_public_key() from None
    check_public_key(raw)
    return raw


def check_public_key(raw: bytes) -> None:
    """Raises Malformed for what cannot be a key's public half, and for the few that fit every message."""
    if len(raw) != PUBLIC_KEY_BYTES or _is_weak(raw):
        raise _no_public_key()
    try:
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise _no_public_key() from None


def _no_public_key() -> Malformed:
    return Malformed(
        "An Ed25519 public key is PEM, 64 hexadecimal digits, or base64 of 32 bytes.",
        {"public_key": "not valid"},
    )


# y of the points of small order, of which a signature can be made without a private key: 0, 1, p - 1, the two
# of order 8, and p, p + 1, which stand for 0 and 1. The sign bit does not matter.
_P = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_WEAK = frozenset({0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8})


def _is_weak(raw: bytes) -> bool:
    return int.from_bytes(raw, "little") & ~(1 << 255) in _WEAK
