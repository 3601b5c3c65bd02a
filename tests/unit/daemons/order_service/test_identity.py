"""Where a gRPC caller comes from, as gRPC writes it."""

import pytest

from daemons.order_service.identity import peer_address


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:50000", "127.0.0.1"),
        ("ipv6:%5B::1%5D:50000", "::1"),
        ("ipv6:[2001:db8::7]:50000", "2001:db8::7"),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_the_address_in_a_peer(peer: str, address: str) -> None:
    assert peer_address(peer) == address
