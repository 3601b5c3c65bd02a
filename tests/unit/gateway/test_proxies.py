"""Whose address counts, whatever the client says of itself."""

import pytest

from common.config import BadSetting
from gateway.proxies import Proxies


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "client"),
    [
        ("", "10.0.0.1", ["192.0.2.7"], "10.0.0.1"),
        ("10.0.0.0/8", "192.0.2.9", ["192.0.2.7"], "192.0.2.9"),  # No proxy of ours.
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", ["203.0.113.1, 192.0.2.7"], "192.0.2.7"),  # The first one is made up.
        ("10.0.0.0/8, 198.51.100.3", "10.0.0.1", ["192.0.2.7, 198.51.100.3"], "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", ["203.0.113.1", "192.0.2.7,10.0.0.2"], "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.9"], "10.0.0.9"),
        ("::1", "::1", ["2001:db8::7"], "2001:db8::7"),
        ("::1", "", ["2001:db8::7"], ""),
    ],
)
def test_the_nearest_that_is_no_proxy(trusted: str, peer: str, said: list[str], client: str) -> None:
    headers = [(b"host", b"a"), *((b"x-forwarded-for", value.encode()) for value in said)]
    assert Proxies(trusted).client_of(peer, headers) == client


def test_what_is_no_network_stops_the_start() -> None:
    with pytest.raises(BadSetting, match="EXCHANGE_TRUSTED_PROXIES"):
        Proxies("10.0.0.1/8")
