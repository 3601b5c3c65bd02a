"""A glance says yes only to what the parser would read in the same way."""

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.glance import glance, request_id

BODY = b'[{"symbol": "BTC-USD"}]'
ORDER = (
    b"POST /api/v1/orders/batch HTTP/1.1\r\nHost: a:1\r\nContent-Length: %d\r\n"
    b"Authorization: Bearer abc\r\nX-Request-Id: mine\r\n\r\n" % len(BODY) + BODY
)


def test_a_usual_order_is_seen() -> None:
    head = glance(ORDER)
    assert head is not None
    assert head + BODY == ORDER
    assert request_id(head) == b"mine"
    assert glance(ORDER.replace(b"/batch", b"")) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"POST", b"GET"),
        (b"/batch", b"/batch?a=1"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Host: a:1\r\n", b""),
        (b"Host: a:1", b"Host: a:1\r\nHost: b"),
        (b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: "),
        (b"Content-Length: ", b"Transfer-Encoding: chunked\r\nContent-Length: "),
        (b"Content-Length: ", b"Content-Length : "),
        (b"Content-Length", b"Content-Size"),
        (b"Host: a:1", b"Host: a:1\r\nExpect: 100-continue"),
        (b"Host: a:1", b"Host: a:1\r\nConnection: close"),
        (b"Host: a:1", b"Host: a:1\r\n folded: x"),
        (BODY, BODY[:-1]),
        (BODY, BODY + b"POST /"),
        (b"abc", b"a\x00c"),
    ],
)
def test_whatever_is_unusual_is_not(old: bytes, new: bytes) -> None:
    assert old in ORDER
    assert glance(ORDER.replace(old, new)) is None


EDITS = st.lists(
    st.tuples(
        st.integers(0, len(ORDER)),
        st.integers(0, 3),
        st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b"0", b"\x00", b"Host: b\r\n"]),
    ),
    max_size=4,
)


@given(EDITS)
@example([])
def test_the_parser_agrees(edits: list[tuple[int, int, bytes]]) -> None:
    data = ORDER
    for at, cut, put in edits:
        data = data[:at] + put + data[at + cut :]
    head = glance(data)
    if head is None:
        return
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) in (
        (b"POST", b"/api/v1/orders"),
        (b"POST", b"/api/v1/orders/batch"),
    )
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert head + body == data
    assert parser.trailing_data == (b"", False)
