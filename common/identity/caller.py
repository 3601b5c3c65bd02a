"""Who calls, as far as it is known: what order-service says of a token or of a key. Values only."""

from dataclasses import dataclass

from common.identity import permissions
from common.identity.networks import Networks, check_address, read_networks
from common.identity.signing import Verifier, verifier
from exchange.v1 import internal_pb2 as internal


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id`: the API key that signed, or that the session came from; None for a plain token."""

    user_id: int
    permissions: int  # Bits of `permissions`.
    key_id: str | None = None
    networks: Networks = ()
    expires_us: int = 0  # Unix time; 0: never.

    def check(self, needs: int, address: str) -> None:
        """Raises PermissionMissing, or AddressNotAllowed when this address may not use the key."""
        if needs & ~self.permissions:
            permissions.check(self.permissions, needs)
        if self.networks:
            check_address(self.networks, address)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A live API key, and what its signatures are checked with. Never to be logged or kept on disk."""

    caller: Caller
    verifier: Verifier

    @property
    def expires_us(self) -> int:
        return self.caller.expires_us


def caller_from(answer: internal.AuthenticateResponse) -> Caller:
    assert answer.user_id > 0
    return Caller(
        answer.user_id,
        answer.permissions,
        answer.api_key or None,
        read_networks(answer.networks),
        answer.expires_us,
    )


def caller_answer(caller: Caller) -> internal.AuthenticateResponse:
    return internal.AuthenticateResponse(
        user_id=caller.user_id,
        permissions=caller.permissions,
        api_key=caller.key_id or "",
        networks=[str(network) for network in caller.networks],
        expires_us=caller.expires_us,
    )


def signing_key_from(answer: internal.FindKeyResponse) -> SigningKey:
    return SigningKey(caller_from(answer.holder), verifier(answer.kind, answer.material))
