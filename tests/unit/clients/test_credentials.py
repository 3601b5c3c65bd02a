"""What is signed, and that the exchange's own words would accept it."""

import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from exchange_client import Credentials, Ed25519Key, HmacKey, Token
from exchange_client.clock import Clock


def pem_of(key: Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_hmac_signs_time_method_target_and_body() -> None:
    headers = HmacKey("key", "secret").headers(1700000000000, "POST", "/api/v1/orders?a=b", b'{"x":1}')
    message = b'1700000000000POST/api/v1/orders?a=b{"x":1}'
    assert headers == {
        "X-Api-Key": "key",
        "X-Timestamp": "1700000000000",
        "X-Signature": hmac.new(b"secret", message, hashlib.sha256).hexdigest(),
    }


def test_ed25519_signs_the_same_bytes() -> None:
    private = Ed25519PrivateKey.generate()
    headers = Ed25519Key.from_pem("key", pem_of(private)).headers(5, "GET", "/api/v1/accounts", b"")
    private.public_key().verify(bytes.fromhex(headers["X-Signature"]), b"5GET/api/v1/accounts")
    with pytest.raises(ValueError, match="no Ed25519"):
        Ed25519Key.from_pem("key", pem_of(X25519PrivateKey.generate()))


def test_a_websocket_is_signed_in_to_by_its_path() -> None:
    said = HmacKey("key", "secret").sign_in(5)
    signature = hmac.new(b"secret", b"5GET/ws", hashlib.sha256).hexdigest()
    assert said == {"api_key": "key", "timestamp": 5, "signature": signature}
    assert Token("t").sign_in(5) == {"token": "t"}


def test_a_grpc_call_is_signed_by_its_method() -> None:
    method = "/exchange.v1.Orders/Submit"
    signature = hmac.new(b"secret", f"5GRPC{method}".encode(), hashlib.sha256).hexdigest()
    signed = {"x-api-key": "key", "x-timestamp": "5", "x-signature": signature}
    assert HmacKey("key", "secret").metadata(5, method) == signed
    assert Token("t").metadata(5, method) == {"authorization": "Bearer t"}


@pytest.mark.parametrize("credentials", [Token("the-secret"), HmacKey("key", "the-secret")])
def test_no_repr_shows_a_secret(credentials: Credentials) -> None:
    assert "the-secret" not in repr(credentials)


def test_empty_credentials_are_refused_here() -> None:
    for make in (lambda: Token(""), lambda: HmacKey("", "s"), lambda: HmacKey("k", "")):
        with pytest.raises(ValueError, match="empty"):
            make()


def test_no_two_stamps_are_alike_and_the_offset_is_in_them() -> None:
    clock = Clock(lambda: 1000.0)
    assert [clock.stamp_ms() for _ in range(3)] == [1_000_000, 1_000_001, 1_000_002]
    clock.took(999.0, 1001.0, datetime.fromtimestamp(1007, UTC))
    assert clock.offset_s == 7
    assert clock.stamp_ms() == 1_007_000
    clock.took(1000.0, 1000.0, datetime.fromtimestamp(1006.9, UTC))  # As exact as a round trip.
    assert clock.stamp_ms() == 1_007_001
    clock.took(1000.0, 1000.0, datetime.fromtimestamp(900, UTC))
    assert clock.stamp_ms() == 900_000  # It has to go back: what was ahead would be refused for long.
