"""The addresses that a key may be used from. Pure.

A list is kept as texts (CIDR) and read once, when a key is looked up. An empty one allows every address.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from common.core.errors import AddressNotAllowed, Malformed

Networks = tuple[IPv4Network | IPv6Network, ...]
MOST = 64


def read_networks(texts: Iterable[str]) -> Networks:
    """Networks from addresses or CIDRs; raises Malformed, also for one with host bits set."""
    found = []
    for text in texts:
        try:
            found.append(ip_network(text.strip()))
        except ValueError:
            raise Malformed(
                "An allow-list has addresses or networks such as 203.0.113.0/24.", {"networks": text[:60]}
            ) from None
    if len(found) > MOST:
        raise Malformed(f"An allow-list has at most {MOST} networks.", {"networks": str(len(found))})
    return tuple(dict.fromkeys(found))


def check_address(networks: Networks, address: str) -> None:
    """Raises AddressNotAllowed when there is a list and `address` is not on it; what is none never is."""
    if networks and not _is_within(networks, address):
        raise AddressNotAllowed(details={"address": address[:60]})


def _is_within(networks: Networks, address: str) -> bool:
    try:
        ip = _unmapped(ip_address(address))
    except ValueError:
        return False
    return any(ip in network for network in networks)


def _unmapped(ip: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """A socket for both families tells an IPv4 client as ::ffff:a.b.c.d."""
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip
