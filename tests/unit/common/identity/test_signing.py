"""Signatures: the bytes of API.md, both kinds of keys, and that any other byte refuses."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import Malformed, SignatureWrong
from common.identity.signing import (
    Ed25519Key,
    HmacKey,
    KeyKind,
    grpc_message,
    http_message,
    read_public_key,
    read_signature,
    verifier,
    websocket_message,
)

PAIR = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PAIR.public_key().public_bytes_raw()
ORDER_OF_THE_GROUP = 2**252 + 27742317777372353535851937790883648493

PEM = PAIR.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def test_the_bytes_are_those_of_the_contract() -> None:
    message = http_message(b"1700000000000", b"POST", b"/api/v1/orders?x=1", b'{"a": 1}')
    assert message == b'1700000000000POST/api/v1/orders?x=1{"a": 1}'
    signature = HmacKey(b"secret").sign(message)
    assert signature.hex() == hmac.new(b"secret", message, hashlib.sha256).hexdigest()
    assert websocket_message(b"17") == b"17GET/ws"
    assert grpc_message(b"17", "/exchange.v1.Orders/Submit") == b"17GRPC/exchange.v1.Orders/Submit"


@given(st.data(), st.binary(min_size=1, max_size=300), st.sampled_from(KeyKind))
def test_any_other_byte_of_message_or_signature_refuses(
    data: st.DataObject, message: bytes, kind: KeyKind
) -> None:
    hmac_key = HmacKey(b"secret")
    key = verifier(kind, b"secret" if kind is KeyKind.HMAC else PUBLIC)
    signature = hmac_key.sign(message) if kind is KeyKind.HMAC else PAIR.sign(message)
    assert key.verify(message, signature)

    def changed(raw: bytes) -> bytes:
        place = data.draw(st.integers(0, len(raw) - 1))
        return raw[:place] + bytes([raw[place] ^ data.draw(st.integers(1, 255))]) + raw[place + 1 :]

    assert not key.verify(changed(message), signature)
    assert not key.verify(message, changed(signature))
    assert not key.verify(message[:-1], signature)
    assert not key.verify(message + b"\0", signature)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 65, 200])
def test_a_signature_of_another_size_is_wrong_and_no_error(size: int) -> None:
    assert not HmacKey(b"secret").verify(b"m", b"\0" * size)
    assert not Ed25519Key(PUBLIC).verify(b"m", b"\0" * size)


def test_an_ed25519_signature_has_no_second_form() -> None:
    """(R, S + L) fits the equation too; whoever took it could repeat a request with it."""
    signature = PAIR.sign(b"m")
    s = int.from_bytes(signature[32:], "little") + ORDER_OF_THE_GROUP
    assert not Ed25519Key(PUBLIC).verify(b"m", signature[:32] + s.to_bytes(32, "little"))


@given(st.binary(min_size=64, max_size=64))
def test_the_spellings_of_a_signature_are_one_signature(raw: bytes) -> None:
    padded = base64.b64encode(raw).decode()
    spellings = (raw.hex(), raw.hex().upper(), padded, padded.rstrip("="))
    assert {read_signature(text) for text in spellings} == {raw}


@pytest.mark.parametrize(
    "text", ["", "ab", "g" * 64, "a" * 63, "a" * 130, "é" * 64, " " + "a" * 64, "a" * 64 + "\n", "-" * 86]
)
def test_what_is_no_signature_is_refused(text: str) -> None:
    with pytest.raises(SignatureWrong):
        read_signature(text)


def test_a_public_key_has_three_spellings() -> None:
    for text in (PEM.decode(), PUBLIC.hex(), base64.b64encode(PUBLIC).decode() + "\n"):
        assert read_public_key(text) == PUBLIC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zz" * 32,
        base64.b64encode(b"x" * 31).decode(),
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        generate_private_key(SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode(),
        (1).to_bytes(32, "little").hex(),  # The neutral point: R = S = 0 would sign everything.
        bytes(32).hex(),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_public_key(text)
