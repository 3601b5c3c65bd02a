"""Who is calling: a bearer token, or a signed request, chosen by the headers that a call carries.

What order-service says of a token or of a key is kept for at most the cache's time, so a revoked one works no
longer than that; an unknown one is asked about again soon, because it may just have been made. A signature is
checked here, against a key that is kept: a signed request costs no call.
"""

import hashlib
import re
from typing import Protocol

from common.core.errors import Unauthenticated
from common.identity.caller import Caller
from common.identity.kept import Kept
from common.identity.networks import check_address
from common.identity.signed import Credentials, SignedRequests
from common.identity.signing import http_message
from common.identity.window import Claim, claim_key
from gateway.calls import Call
from gateway.redis_pipe import RedisAway, RedisPipe

_BEARER = re.compile(rb"[Bb]earer +([A-Za-z0-9._~+/=-]{1,256})")


class Identify(Protocol):
    """Who sent a call; raises Unauthenticated or Forbidden (or a kind of them), Busy or Unavailable."""

    async def __call__(self, call: Call) -> Caller: ...


class Identity:
    """Identifies by token or by signature. With both, the token counts."""

    def __init__(self, tokens: Kept[Caller], signed: SignedRequests) -> None:
        self._tokens = tokens
        self._signed = signed

    async def __call__(self, call: Call) -> Caller:
        authorization = call.header(b"authorization")
        if authorization is None:
            return await self._by_signature(call)
        token = bearer_token(authorization)
        name = hashlib.sha256(token).digest()
        caller = self._tokens.peek(name) or await self._tokens.find(name, token.decode("ascii"))
        if caller.networks:
            check_address(caller.networks, call.address)
        return caller

    def knows(self, call: Call) -> bool:
        """True when the call's token is one that this gateway has had confirmed a moment ago."""
        match = _BEARER.fullmatch(call.header(b"authorization") or b"")
        return match is not None and self._tokens.peek(hashlib.sha256(match[1]).digest()) is not None

    def forget(self, token: bytes) -> None:
        """This gateway asks again about the token; the others do so within the cache's time."""
        self._tokens.forget(hashlib.sha256(token).digest())

    async def _by_signature(self, call: Call) -> Caller:
        api_key = call.header(b"x-api-key")
        if api_key is None:
            raise Unauthenticated(
                "Send the header Authorization: Bearer TOKEN, or sign the request:"
                " X-Api-Key, X-Timestamp, X-Signature."
            )
        timestamp, signature = call.header(b"x-timestamp") or b"", call.header(b"x-signature") or b""
        return await self._signed.identify(
            Credentials(api_key.decode("latin-1"), timestamp.decode("latin-1"), signature.decode("latin-1")),
            lambda signed: http_message(signed, call.method.encode(), _target(call), call.body),
            call.address,
        )


def _target(call: Call) -> bytes:
    """path?query as they were sent."""
    return b"%b?%b" % (call.target, call.query) if call.query else call.target


def bearer_token(authorization: bytes) -> bytes:
    """The token in the header's value; raises Unauthenticated."""
    match = _BEARER.fullmatch(authorization)
    if match is None:
        raise Unauthenticated("Send the header Authorization: Bearer TOKEN.")
    return match[1]


def claims_through(pipe: RedisPipe, prefix: str) -> Claim:
    """The memory of signatures that gateways share; concurrent requests share its round trips."""

    async def claim(signature: bytes, for_ms: int) -> bool | None:
        try:
            return await pipe.command("SET", claim_key(prefix, signature), 1, "NX", "PX", for_ms) is not None
        except RedisAway:
            return None

    return claim
