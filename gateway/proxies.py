"""Whose address a request comes from, behind proxies that are ours.

X-Forwarded-For is a list to which each proxy adds the one that it heard from, and anybody may begin it with
anything. So it is read from its end, and only as far as those who wrote it are trusted; without trusted
proxies it is not read at all.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from common.config import BadSetting, addresses


class Proxies:
    """The proxies that a setting names: addresses and networks, by comma. Raises BadSetting."""

    def __init__(self, setting: str) -> None:
        try:
            networks = [ip_network(each) for each in addresses(setting)]
        except ValueError as error:
            raise BadSetting(f"EXCHANGE_TRUSTED_PROXIES: {error}") from None
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(networks)
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._networks)
        except ValueError:
            return False

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The nearest address on the way that is no proxy of ours."""
        if not self._networks or not self.trusts(peer):
            return peer
        said = b",".join(value for name, value in headers if name == b"x-forwarded-for")
        nearest = peer
        for part in reversed(said.decode("latin-1").split(",")):
            address = part.strip()
            try:
                ip_address(address)
            except ValueError:
                break  # A proxy that does not know; nothing before it is any better.
            nearest = address
            if not self.trusts(address):
                break
        return nearest


NO_PROXIES = Proxies("")
