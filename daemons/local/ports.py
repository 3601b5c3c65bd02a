"""Ports of the local exchange: free ones, and a sentence when a wanted one is taken."""

import random
import socket

from daemons.local.process import LocalError

# Below the range from which outgoing connections take theirs, so that none slips in between.
_FIRST, _LAST = 15_000, 32_000
_TRIES = 200
_BACKLOG = 4_096

_given: set[int] = set()  # Two servers that start at the same time must not get the same one.


class PortTaken(LocalError):
    """Somebody listens on a port that we were told to use."""

    code = "PORT_TAKEN"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, never given twice by this process."""
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)  # noqa: S311  # Not a secret.
        if port not in _given and is_free(host, port):
            _given.add(port)
            return port
    raise LocalError(f"No free port on {host} between {_FIRST} and {_LAST}")


def is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


def preferred_port(port: int, host: str = "127.0.0.1") -> int:
    """This port, or another free one when it is taken."""
    if port and port not in _given and is_free(host, port):
        _given.add(port)
        return port
    return free_port(host)


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A listening socket for a child to inherit. Raises PortTaken, which names port and setting."""
    try:
        listener = _bind(host, port)
    except OSError as error:
        raise PortTaken(
            f"Port {port} on {host} cannot be used ({error.strerror});"
            f" free it, or choose another with {setting}"
        ) from error
    listener.listen(_BACKLOG)
    return listener


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except BaseException:
        listener.close()
        raise
    return listener
