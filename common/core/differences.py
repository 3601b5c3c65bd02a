"""What a replay found to differ, as values. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MOST_DIFFERENCES = 20

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs, where, and by which columns. None: there is no such thing on that side."""

    what: str
    where: str
    expected: Mapping[str, object] | None
    found: Mapping[str, object] | None


@dataclass(slots=True)
class Differences:
    """All are counted, the first are kept."""

    count: int = 0
    first: list[Difference] = field(default_factory=list)

    def add(
        self,
        what: str,
        where: str,
        expected: Mapping[str, object] | None,
        found: Mapping[str, object] | None,
    ) -> None:
        self.count += 1
        if len(self.first) < MOST_DIFFERENCES:
            self.first.append(Difference(what, where, expected, found))

    def compare(self, what: str, where: str, columns: Sequence[str], expected: Row, found: Row) -> None:
        """Add the columns that differ, if any do."""
        if expected != found:
            apart = [index for index, name in enumerate(columns) if expected[index] != found[index]]
            self.add(
                what,
                where,
                {columns[index]: expected[index] for index in apart},
                {columns[index]: found[index] for index in apart},
            )
