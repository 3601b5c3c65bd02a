"""Redis' wire protocol as the gateway speaks it, around hiredis: commands to bytes, bytes to replies; pure.

Numbers and texts are sent as their bytes. A reply is bytes, an int, None, or a list of replies. An error is a
value too, an `ErrorReply`, because the replies around it in a pipeline are as good as ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

import hiredis

Word: TypeAlias = bytes | str | int


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """What Redis says when it refuses: its code, then words for people."""

    text: str

    @property
    def code(self) -> str:
        return self.text.partition(" ")[0]


Reply: TypeAlias = "bytes | int | ErrorReply | list[Reply] | None"


class BadReply(Exception):
    """The other side does not speak Redis' protocol; its connection is of no use."""


_NOT_WHOLE: Final = object()


def encode(words: Sequence[Word]) -> bytes:
    """One command."""
    packed: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # typed for one word only
    return packed


class Replies:
    """Takes bytes as they come and gives whole replies, in order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=BadReply,
            replyError=ErrorReply,  # type: ignore[arg-type]  # any callable will do
            notEnoughData=_NOT_WHOLE,
        )

    def feed(self, data: bytes | bytearray) -> None:
        self._reader.feed(bytes(data))

    def take(self, most: int) -> list[Reply]:
        """The next whole replies, at most so many; raises BadReply."""
        taken: list[Reply] = []
        while len(taken) < most and (reply := self._reader.gets()) is not _NOT_WHOLE:
            taken.append(cast(Reply, reply))
        return taken
