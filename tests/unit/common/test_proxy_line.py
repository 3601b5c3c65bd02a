"""The line that tells whose connection is spliced."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.proxy_line import MOST_BYTES, BadProxyLine, proxy_line, take_proxy_line

PORTS = st.integers(1, 65535)


@given(st.ip_addresses(), PORTS, st.ip_addresses(), PORTS, st.binary(max_size=50))
def test_what_is_told_is_heard(client: object, port: int, server: object, other: int, rest: bytes) -> None:
    line = proxy_line((str(client), port), (str(server), other))
    assert len(line) <= MOST_BYTES
    assert take_proxy_line(line + rest) == (str(client), rest)


@given(st.binary(max_size=120))
def test_without_a_line_nothing_is_taken(data: bytes) -> None:
    if not data.startswith(b"PROXY "):
        assert take_proxy_line(data) == ("", data)


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY ",
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\n",
        b"PROXY TCP4 here there 1 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2 3\r\n",
    ],
)
def test_half_a_line_is_refused(data: bytes) -> None:
    with pytest.raises(BadProxyLine):
        take_proxy_line(data)
