"""What a key, a session or a token allows: a sum of bits, so that one `&` answers for a request. Pure.

WITHDRAW is kept and shown, and no route asks for it yet: withdrawals are acts of the operator.
"""

from collections.abc import Iterable
from typing import Literal

from common.core.errors import Malformed, PermissionMissing

READ, TRADE, WITHDRAW = 1, 2, 4  # As they stand in the database and on the wire.
ALL = READ | TRADE | WITHDRAW
Name = Literal["READ", "TRADE", "WITHDRAW"]
_NAMES: dict[Name, int] = {"READ": READ, "TRADE": TRADE, "WITHDRAW": WITHDRAW}
_BITS: dict[str, int] = {str(name): bit for name, bit in _NAMES.items()}


def names(permissions: int) -> list[Name]:
    """As the API shows them, in a fixed order."""
    return [name for name, bit in _NAMES.items() if permissions & bit]


def from_names(given: Iterable[str]) -> int:
    """Raises Malformed for a name that is none, and for no name at all: nothing would be allowed."""
    permissions = 0
    for name in given:
        bit = _BITS.get(name)
        if bit is None:
            raise Malformed("Permissions are READ, TRADE and WITHDRAW.", {"permissions": str(name)[:40]})
        permissions |= bit
    if not permissions:
        raise Malformed("At least one permission is needed.", {"permissions": "empty"})
    return permissions


def check(have: int, needs: int) -> None:
    """Raises PermissionMissing unless every bit of `needs` is there."""
    missing = names(needs & ~have)
    if missing:
        raise PermissionMissing(details={"needs": ", ".join(missing)})
