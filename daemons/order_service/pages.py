"""Pages of lists: where one ends, and the cursor that the next one begins with. Pure.

A list is read newest first, from one source or from several, each in the order of a position (a tuple of
numbers that only falls). A filter that no index serves looks at SCAN_ROWS rows of a source at most: then a
page may be short, or empty, and its cursor says where to go on. Only a page without a cursor is the last.

Does not promise: that a cursor is secret or lasts. It says where in the caller's own list a page ended.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct
from typing import Generic, TypeVar

from common.core.errors import Malformed

SCAN_ROWS = 5_000
_VERSION = b"\x01"
_DIGEST_BYTES = 8

Position = tuple[int, ...]
Question = tuple[str | int, ...]  # Who asks for what, with which filters.
T = TypeVar("T")


@dataclass(slots=True)
class Slice(Generic[T]):
    """What one source has, newest first. `end`: the last position that was looked at, when there may be more
    of what is asked behind it; None: there is nothing, or `rows` are enough by themselves."""

    rows: Sequence[tuple[Position, T]]
    end: Position | None = None


def page_of(slices: Sequence[Slice[T]], limit: int) -> tuple[list[T], Position | None]:
    """The newest `limit` rows of all slices, and where the next page begins; None: nothing is left.

    Each slice has more than `limit` rows, or all that there are down to its `end`.
    """
    ends = [piece.end for piece in slices if piece.end is not None]
    known_to = max(ends, default=None)  # Below it, a slice may be missing something.
    rows = sorted((row for piece in slices for row in piece.rows), key=lambda row: row[0], reverse=True)
    if known_to is not None:
        rows = [row for row in rows if row[0] >= known_to]
    values = [value for _, value in rows[:limit]]
    if len(rows) > limit:
        return values, rows[limit - 1][0]
    return values, known_to


def cursor_of(position: Position, question: Question) -> str:
    """The position as a text that is good for this question alone."""
    told = _VERSION + _digest(repr(question).encode()) + _numbers(len(position)).pack(*position)
    return urlsafe_b64encode(told + _digest(told)).rstrip(b"=").decode("ascii")


def position_of(cursor: str, question: Question, numbers: int) -> Position:
    """The position of so many numbers that a cursor stands for; raises Malformed."""
    try:
        whole = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
    except ValueError:
        raise _unknown() from None
    if urlsafe_b64encode(whole).rstrip(b"=") != cursor.encode("ascii"):
        raise _unknown()  # Other characters can stand for the same bytes.
    told, check = whole[:-_DIGEST_BYTES], whole[-_DIGEST_BYTES:]
    layout = _numbers(numbers)
    if not (told[:1] == _VERSION and len(told) == 1 + _DIGEST_BYTES + layout.size and check == _digest(told)):
        raise _unknown()
    if told[1 : 1 + _DIGEST_BYTES] != _digest(repr(question).encode()):
        raise Malformed(
            "This cursor belongs to a list with other filters: keep them from page to page",
            {"cursor": "given out for other filters"},
        )
    return tuple(layout.unpack(told[1 + _DIGEST_BYTES :]))


def _numbers(count: int) -> Struct:
    return Struct(f">{count}q")


def _digest(data: bytes) -> bytes:
    """Against mistakes. Who forges one reads on elsewhere in a list that is theirs anyway."""
    return sha256(data).digest()[:_DIGEST_BYTES]


def _unknown() -> Malformed:
    return Malformed("This cursor was not given out here", {"cursor": "not valid"})
