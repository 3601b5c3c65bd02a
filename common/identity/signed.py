"""A signed request, from what it carries to who sent it: the same for HTTP, the WebSocket and gRPC.

What is cheap and needs nobody comes first. A request counts as taken once everything else about it is right:
so nobody can fill the memory of signatures without a key, and a refused request may be sent again as it is.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from common.core.errors import SignatureWrong, Unauthenticated
from common.identity.caller import Caller, SigningKey
from common.identity.kept import Kept
from common.identity.networks import check_address
from common.identity.signing import read_signature
from common.identity.window import Replays, Window

_API_KEY = re.compile(r"[A-Za-z0-9_-]{8,64}")


def looks_like_api_key(text: str) -> bool:
    return _API_KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The three values of a signed request, as texts that have not been looked at."""

    api_key: str
    timestamp: str
    signature: str


class SignedRequests:
    """Checks them with keys that `keys` finds; nothing else is asked for."""

    def __init__(self, keys: Kept[SigningKey], window: Window, replays: Replays) -> None:
        self._keys = keys
        self._window = window
        self._replays = replays

    async def identify(
        self, credentials: Credentials, message: Callable[[bytes], bytes], address: str
    ) -> Caller:
        """Who signed `message(timestamp)`, sent from the IP address `address`.

        Raises Unauthenticated (or one of its kinds), AddressNotAllowed, Busy or Unavailable.
        """
        timestamp_ms = self._window.check(credentials.timestamp)
        signature = read_signature(credentials.signature)
        key = await self.find(credentials.api_key)
        if not key.verifier.verify(message(credentials.timestamp.encode()), signature):
            raise SignatureWrong
        if key.caller.networks:
            check_address(key.caller.networks, address)
        await self._replays.take(signature, timestamp_ms)
        return key.caller

    async def find(self, api_key: str) -> SigningKey:
        """A live key; raises Unauthenticated or Unavailable."""
        if not looks_like_api_key(api_key):
            raise Unauthenticated("This is no API key.")
        return await self._keys.find(api_key.encode(), api_key)
