"""Pages show each row once, in order, whatever the filters; cursors are good for their own list alone."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.core.errors import Malformed
from daemons.order_service.pages import Position, Slice, cursor_of, page_of, position_of

int64s = st.integers(-(1 << 63), (1 << 63) - 1)
questions = st.tuples(st.sampled_from(["orders", "fills"]), st.integers(), st.text(), st.integers())


def slice_of(rows: list[int], wanted: set[int], after: int, limit: int, scan: int) -> Slice[int]:
    """What a source gives: of the first `scan` rows after the cursor those that fit, and where it stopped."""
    looked_at = [row for row in sorted(rows, reverse=True) if row < after][:scan]
    fit = [((row,), row) for row in looked_at if row in wanted][: limit + 1]
    enough = len(fit) > limit or len(looked_at) < scan
    return Slice(fit, None if enough else (looked_at[-1],))


@given(
    sources=st.lists(st.sets(st.integers(0, 60)), min_size=1, max_size=3),
    wanted=st.sets(st.integers(0, 60)),
    limit=st.integers(1, 6),
    scan=st.integers(1, 9),
)
def test_page_after_page_is_the_whole_list(
    sources: list[set[int]], wanted: set[int], limit: int, scan: int
) -> None:
    apart = [[row * len(sources) + index for row in rows] for index, rows in enumerate(sources)]
    fitting = {row for rows in apart for row in rows if row // len(sources) in wanted}
    scan = max(scan, limit + 1)
    seen: list[int] = []
    after: int | None = 1000
    while after is not None:
        page, end = page_of([slice_of(rows, fitting, after, limit, scan) for rows in apart], limit)
        assert len(page) <= limit
        assert end is None or end[0] < after  # It goes on.
        seen += page
        after = None if end is None else end[0]
    assert seen == sorted(fitting, reverse=True)


@given(position=st.lists(int64s, min_size=2, max_size=3).map(tuple), question=questions)
def test_a_cursor_says_where_it_was_given_out(position: Position, question: tuple[str | int, ...]) -> None:
    cursor = cursor_of(position, question)
    assert len(cursor) <= 128
    assert position_of(cursor, question, len(position)) == position


@given(question=questions, other=questions)
def test_a_cursor_is_of_no_use_for_another_question(
    question: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    cursor = cursor_of((1, 2), question)
    if question != other:
        with pytest.raises(Malformed, match="other filters"):
            position_of(cursor, other, 2)
    with pytest.raises(Malformed, match="not given out"):
        position_of(cursor, question, 3)


@given(bit=st.integers(0, 8 * 33 - 1))
def test_a_changed_cursor_is_known(bit: int) -> None:
    whole = bytearray(urlsafe_b64decode(cursor_of((1, 2), ("orders", 7)) + "=="))
    assert len(whole) == 33
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Malformed):
        position_of(urlsafe_b64encode(whole).rstrip(b"=").decode(), ("orders", 7), 2)


@given(
    st.one_of(
        st.text(),
        st.text("ABCDwxyz0189-_=.:", max_size=128),
        st.binary().map(urlsafe_b64encode).map(bytes.decode),
    )
)
def test_any_other_text_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        position_of(text, ("orders", 7), 2)
