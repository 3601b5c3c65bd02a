"""Figures and how they are printed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `goal` is what the project wants to reach, `limit` the machine's own figure."""

    what: str
    value: float
    unit: str
    goal: str = ""
    limit: str = ""

    @property
    def text(self) -> str:
        return f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:,.2f}"

    def __str__(self) -> str:
        beside = ", ".join(part for part in (self.goal and f"goal {self.goal}", self.limit) if part)
        return f"{self.what}: {self.text} {self.unit}" + (f" ({beside})" if beside else "")


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def as_markdown(figures: Sequence[Figure]) -> str:
    rows = [("what", "figure", "goal", "the machine's own")]
    rows += [(one.what, f"{one.text} {one.unit}", one.goal, one.limit) for one in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def as_data(figures: Sequence[Figure]) -> list[dict[str, object]]:
    return [asdict(figure) for figure in figures]
