"""Who the caller is: a bearer token, or a key that signs each request; pure.

What is signed: timestamp (Unix ms) + METHOD + path?query + body, all as sent. The receiver accepts a
timestamp for a few seconds only, so the clock that makes it must follow the exchange's (see `clock`).
No `repr` shows a secret.
"""

import hashlib
import hmac
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

WEBSOCKET_PATH = "/ws"
# Refused before anything was done; to sign the same again, now, is another try: the receiver has just
# started, or another program signed with the same key in the same millisecond.
SIGN_AGAIN = frozenset({"TIMESTAMP_OUTSIDE_WINDOW", "SIGNATURE_REPEATED"})


class Credentials(ABC):
    """What every kind can do."""

    needs_time = True  # False: the timestamp is not used.

    @abstractmethod
    def headers(self, timestamp_ms: int, method: str, target: str, body: bytes) -> dict[str, str]:
        """The headers that say who sends this request; `target` is path?query as on the wire."""

    @abstractmethod
    def metadata(self, timestamp_ms: int, method: str) -> dict[str, str]:
        """The same for a gRPC call; `method` is its full name, such as /exchange.v1.Orders/Submit."""

    @abstractmethod
    def sign_in(self, timestamp_ms: int) -> dict[str, str | int]:
        """The fields of the WebSocket's "auth" message."""


class Token(Credentials):
    """A bearer token."""

    needs_time = False

    def __init__(self, token: str) -> None:
        if not token:
            raise ValueError("the token is empty")
        self._token = token

    def __repr__(self) -> str:
        return "Token(...)"

    def headers(self, timestamp_ms: int, method: str, target: str, body: bytes) -> dict[str, str]:  # noqa: ARG002
        return {"Authorization": f"Bearer {self._token}"}

    def metadata(self, timestamp_ms: int, method: str) -> dict[str, str]:  # noqa: ARG002
        return {"authorization": f"Bearer {self._token}"}

    def sign_in(self, timestamp_ms: int) -> dict[str, str | int]:  # noqa: ARG002
        return {"token": self._token}


class SigningKey(Credentials):
    """A key that signs; what it is made of, its children know."""

    def __init__(self, api_key: str) -> None:
        if not api_key:
            raise ValueError("the api key is empty")
        self.api_key = api_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.api_key!r}, ...)"

    @abstractmethod
    def sign(self, message: bytes) -> str:
        """The signature as hex."""

    def headers(self, timestamp_ms: int, method: str, target: str, body: bytes) -> dict[str, str]:
        signature = self.sign(f"{timestamp_ms}{method}{target}".encode() + body)
        return {"X-Api-Key": self.api_key, "X-Timestamp": str(timestamp_ms), "X-Signature": signature}

    def metadata(self, timestamp_ms: int, method: str) -> dict[str, str]:
        """The messages are not signed: a stream has no end that could be. TLS keeps them whole."""
        signature = self.sign(f"{timestamp_ms}GRPC{method}".encode())
        return {"x-api-key": self.api_key, "x-timestamp": str(timestamp_ms), "x-signature": signature}

    def sign_in(self, timestamp_ms: int) -> dict[str, str | int]:
        signature = self.sign(f"{timestamp_ms}GET{WEBSOCKET_PATH}".encode())
        return {"api_key": self.api_key, "timestamp": timestamp_ms, "signature": signature}


class HmacKey(SigningKey):
    """An API key and its secret: HMAC-SHA256. The exchange knows the secret, too."""

    def __init__(self, api_key: str, api_secret: str) -> None:
        super().__init__(api_key)
        if not api_secret:
            raise ValueError("the api secret is empty")
        self._secret = api_secret.encode()

    def sign(self, message: bytes) -> str:
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()


class Ed25519Key(SigningKey):
    """An API key whose public half alone the exchange knows. Needs the extra `ed25519`."""

    def __init__(self, api_key: str, private_key: "Ed25519PrivateKey") -> None:
        super().__init__(api_key)
        self._private_key = private_key

    @classmethod
    def from_pem(cls, api_key: str, pem: bytes) -> "Ed25519Key":
        """From an unencrypted private key in PEM; raises ValueError for anything else."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(pem, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("this is no Ed25519 private key")
        return cls(api_key, key)

    def sign(self, message: bytes) -> str:
        return self._private_key.sign(message).hex()
