"""Permissions by name and by bit, and the addresses that a key may be used from."""

import pytest

from common.core.errors import AddressNotAllowed, Malformed, PermissionMissing
from common.identity import permissions
from common.identity.networks import check_address, read_networks
from common.identity.permissions import ALL, READ, TRADE, WITHDRAW


def test_names_and_bits() -> None:
    for bits in range(1, ALL + 1):
        assert permissions.from_names(permissions.names(bits)) == bits
    assert permissions.names(ALL) == ["READ", "TRADE", "WITHDRAW"]


@pytest.mark.parametrize("names", [[], ["read"], ["READ", "ADMIN"], [""]])
def test_unknown_names_are_refused(names: list[str]) -> None:
    with pytest.raises(Malformed):
        permissions.from_names(names)


def test_what_is_missing_is_named() -> None:
    permissions.check(READ | TRADE, TRADE)
    permissions.check(0, 0)
    for have, needs, missing in ((READ, TRADE, "TRADE"), (0, READ, "READ"), (READ, ALL, "TRADE, WITHDRAW")):
        with pytest.raises(PermissionMissing) as caught:
            permissions.check(have, needs)
        assert caught.value.details == {"needs": missing}
    assert WITHDRAW not in (READ, TRADE)


@pytest.mark.parametrize(
    ("listed", "address", "allowed"),
    [
        ([], "203.0.113.9", True),
        ([], "", True),
        (["203.0.113.0/24"], "203.0.113.9", True),
        (["203.0.113.0/24"], "203.0.114.9", False),
        (["203.0.113.9"], "203.0.113.9", True),
        (["203.0.113.9"], "::ffff:203.0.113.9", True),
        (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1", True),
        (["10.0.0.0/8"], "2001:db8::1", False),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["0.0.0.0/0"], "", False),
        (["0.0.0.0/0"], "10.0.0.1, 10.0.0.2", False),
    ],
)
def test_an_allow_list(listed: list[str], address: str, allowed: bool) -> None:
    networks = read_networks(listed)
    if allowed:
        check_address(networks, address)
    else:
        with pytest.raises(AddressNotAllowed):
            check_address(networks, address)


@pytest.mark.parametrize("text", ["", "here", "10.0.0.1/8", "10.0.0.0/33", "300.1.1.1", "10.0.0.1:80"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        read_networks([text])
    with pytest.raises(Malformed):
        read_networks(["10.0.0.0/8"] + [f"10.0.{n}.0/24" for n in range(64)])
