"""Commands as bytes, and replies that come in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resp import BadReply, ErrorReply, Replies, Reply, encode

LINES = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=20)
REPLIES: st.SearchStrategy[Reply] = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=50) | st.builds(ErrorReply, LINES),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


def as_bytes(reply: Reply) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case ErrorReply(text):
            return b"-%b\r\n" % text.encode()
        case _:
            return b"*%d\r\n" % len(reply) + b"".join(map(as_bytes, reply))


def test_a_command() -> None:
    assert encode(["SET", b"\x00\r\n", 15]) == b"*3\r\n$3\r\nSET\r\n$3\r\n\x00\r\n\r\n$2\r\n15\r\n"


@given(st.lists(REPLIES, max_size=5), st.lists(st.integers(1, 30)))
def test_replies_are_the_same_however_they_are_cut(replies: list[Reply], cuts: list[int]) -> None:
    data = b"".join(map(as_bytes, replies))
    reader = Replies()
    got: list[Reply] = []
    for size in cuts:
        reader.feed(data[:size])
        data = data[size:]
        got += reader.take(len(replies) - len(got))
    reader.feed(data)
    got += reader.take(len(replies) - len(got))
    assert got == replies


def test_no_more_is_taken_than_was_asked_for() -> None:
    reader = Replies()
    reader.feed(b"+OK\r\n*-1\r\n:3\r\n")
    assert reader.take(2) == [b"OK", None]
    assert reader.take(2) == [3]
    assert ErrorReply("NOSCRIPT No such script").code == "NOSCRIPT"


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":x\r\n", b"$1x\r\n", b"\r\n"])
def test_what_is_no_reply(data: bytes) -> None:
    reader = Replies()
    reader.feed(data)
    with pytest.raises(BadReply):
        reader.take(1)
