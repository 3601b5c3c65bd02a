"""Which roles may call what, on the ports between the daemons and on the operators'.

A server that is given `Peers` asks every caller's certificate for its role before the call reaches the
service. So what the service reads from the metadata, such as `x-user-id`, comes from a process that was
let in to say it. Without TLS there is nobody to ask: that is local mode, where every port is on loopback.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio

from common.core.errors import Forbidden, Unauthenticated
from common.tls import Role

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# Whoever has a certificate may ask whether a service lives and what it offers.
OPEN = ("/grpc.health.v1.", "/grpc.reflection.")
ROLES = frozenset(role.value for role in Role)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who called: the roles that its certificate names (one, in good order) and the holder's name."""

    name: str
    roles: frozenset[str]


class Peers:
    """Lets roles call methods; `rules` are the beginnings of the full names that a role may call."""

    def __init__(self, rules: Mapping[Role, Sequence[str]]) -> None:
        self._rules = {role.value: (*beginnings, *OPEN) for role, beginnings in rules.items()}

    def check(self, method: str, context: Context) -> None:
        """Raises Unauthenticated without a certificate, Forbidden for a role that may not call this."""
        peer = peer_of(context)
        if peer is None:
            raise Unauthenticated("The caller showed no certificate")
        if not self.allows(peer.roles, method):
            raise Forbidden(f"{' and '.join(sorted(peer.roles)) or 'A certificate without a role'} may not")

    def allows(self, roles: frozenset[str], method: str) -> bool:
        return any(method.startswith(self._rules.get(role, OPEN)) for role in roles)


def peer_of(context: Context) -> Peer | None:
    """Whose certificate this call came with; None when it came without."""
    shown = context.auth_context()
    names = shown.get("x509_subject_alternative_name")
    if names is None:
        return None
    common_name = b"".join(shown.get("x509_common_name", ())).decode("utf-8", "replace")
    return Peer(common_name, ROLES.intersection(name.decode("utf-8", "replace") for name in names))
