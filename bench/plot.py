"""Lines over time in panels, one above the other, as an SVG that any page shows. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _PANEL, _LEFT, _RIGHT, _TOP, _GAP = 1000, 150, 80, 20, 30, 50
_COLORS = ("#3366cc", "#dd7711", "#bb2222", "#228855", "#884488", "#555555", "#00aacc", "#aaaa00")
_GRID, _TEXT = "#dddddd", "#333333"
_STEPS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300)


@dataclass(frozen=True, slots=True)
class Panel:
    """`lines`: for each name a value a second, from second 0 on."""

    title: str
    lines: Mapping[str, Sequence[float]]


def panels(title: str, shown: Sequence[Panel], marks: Mapping[float, str]) -> str:
    """`marks`: what happened at which second, drawn through all panels."""
    end_s = max((len(line) for panel in shown for line in panel.lines.values()), default=1)
    height = _TOP + len(shown) * (_PANEL + _GAP)
    parts = [_text(_LEFT, 18, title, size=14)]
    for number, panel in enumerate(shown):
        parts += _panel(panel, _TOP + number * (_PANEL + _GAP) + 20, end_s)
    for at_s, name in marks.items():
        x = _x(at_s, end_s)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{height - 20}" stroke="#999999"/>')
        parts.append(_text(x + 3, _TOP + 10, name, color="#777777"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _panel(panel: Panel, top: int, end_s: int) -> list[str]:
    highest = max((value for line in panel.lines.values() for value in line), default=0.0) or 1.0
    bottom = top + _PANEL
    parts = []
    for fifth in range(6):
        y = bottom - fifth * _PANEL / 5
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="{_GRID}"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{highest * fifth / 5:,.0f}", anchor="end"))
    step_s = next((step for step in _STEPS_S if end_s / step <= 16), _STEPS_S[-1])
    parts += [
        _text(_x(at_s, end_s), bottom + 14, f"{at_s} s", anchor="middle") for at_s in range(0, end_s, step_s)
    ]
    parts.append(_text(_LEFT, top - 6, panel.title))
    for number, (name, line) in enumerate(panel.lines.items()):
        color = _COLORS[number % len(_COLORS)]
        points = " ".join(
            f"{_x(second + 0.5, end_s)},{round(bottom - value / highest * _PANEL, 1)}"
            for second, value in enumerate(line)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.4"/>')
        parts.append(_text(_LEFT + 260 + 110 * number, top - 6, name, color=color))
    return parts


def _x(at_s: float, end_s: int) -> float:
    return round(_LEFT + at_s / end_s * (_WIDTH - _LEFT - _RIGHT), 1)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = _TEXT) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{color}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
