"""How the gateway tells market-data whose WebSocket it splices: the PROXY protocol's first version.

One line before the first byte of the client (haproxy.org, proxy-protocol.txt, 2.1). It is believed on a port
that only gateways reach: over mutual TLS, or in local mode on loopback. Pure.
"""

import re

MOST_BYTES = 107  # Of a line, as the protocol has it.
_LINE = re.compile(rb"PROXY TCP[46] ([0-9a-fA-F.:]{2,45}) [0-9a-fA-F.:]{2,45} [0-9]{1,5} [0-9]{1,5}\r\n")
_BEGINNING = b"PROXY "


class BadProxyLine(ValueError):
    """What begins like a PROXY line is none."""


def proxy_line(client: tuple[str, int], server: tuple[str, int]) -> bytes:
    """For a connection from `client` to `server`, both IP addresses and ports."""
    family = "TCP6" if ":" in client[0] else "TCP4"
    return f"PROXY {family} {client[0]} {server[0]} {client[1]} {server[1]}\r\n".encode("ascii")


def take_proxy_line(data: bytes) -> tuple[str, bytes]:
    """The client's address and what follows the line; "" and all of it when there is none.

    `data` is at least the first line. Raises BadProxyLine.
    """
    if not data.startswith(_BEGINNING):
        return "", data
    match = _LINE.match(data)
    if match is None or match.end() > MOST_BYTES:
        raise BadProxyLine
    return match[1].decode("ascii"), data[match.end() :]
