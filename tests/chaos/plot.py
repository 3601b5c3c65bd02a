"""Throughput over time with the faults marked on it, as an SVG that any page shows. Pure."""

from collections.abc import Iterable, Sequence
from html import escape

from tests.chaos.outcome import Outcome

_WIDTH, _HEIGHT = 1600, 580
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 20, 190, 50
_ACCEPTED, _TRADES, _FAULT, _REST, _GRID = "#3366cc", "#dd7711", "#bb2222", "#eeeeee", "#dddddd"
_STEPS_S = (10, 30, 60, 120, 300, 600)
_MOST_TICKS = 16
_MOST_NAMES = 45  # Beyond it the marks have numbers, which the report's table explains.


def plot(outcome: Outcome) -> str:
    """Orders accepted and trades settled a second; red: faults, until recovered; grey: the load rests."""
    end_s = max(1, int(outcome.seconds))
    seconds = range(end_s)
    accepted = [outcome.accepted_by_s[second] for second in seconds]
    trades = [outcome.trades_by_s[second] for second in seconds]
    axes = _Axes(end_s, max(1, *accepted, *trades))
    parts = [*_frame(axes)]
    parts += [_span(axes, begin_s, stop_s, _REST, 1.0) for begin_s, stop_s in outcome.rests]
    parts += [_span(axes, ran.began_s, ran.recovered_s, _FAULT, 0.12) for ran in outcome.ran]
    parts += [_line(axes, accepted, _ACCEPTED), _line(axes, trades, _TRADES)]
    named = len(outcome.ran) <= _MOST_NAMES
    for ran in outcome.ran:
        x = axes.x(ran.began_s)
        parts.append(f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_FAULT}"/>')
        text = escape(f"{ran.number}. {ran.kind}" if named else str(ran.number))
        parts.append(_text(x + 3, _TOP - 6, text, turn=-50, size=11 if named else 9, color=_FAULT))
    parts += _legend()
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        f' font-family="sans-serif">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


class _Axes:
    """From seconds and counts to pixels."""

    def __init__(self, end_s: int, highest: int) -> None:
        self.end_s = end_s
        self.highest = highest

    def x(self, at_s: float) -> float:
        return round(_LEFT + at_s / self.end_s * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, count: float) -> float:
        return round(_HEIGHT - _BOTTOM - count / self.highest * (_HEIGHT - _TOP - _BOTTOM), 1)


def _frame(axes: _Axes) -> Iterable[str]:
    step_s = next((step for step in _STEPS_S if axes.end_s / step <= _MOST_TICKS), _STEPS_S[-1])
    for at_s in range(0, axes.end_s + 1, step_s):
        x = axes.x(at_s)
        yield f'<line x1="{x}" x2="{x}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{_GRID}"/>'
        yield _text(x, _HEIGHT - _BOTTOM + 18, f"{at_s // 60}:{at_s % 60:02}", anchor="middle")
    step = max(1, round(axes.highest / 5, -1 if axes.highest > 50 else 0))
    count = 0.0
    while count <= axes.highest:
        y = axes.y(count)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="{_GRID}"/>'
        yield _text(_LEFT - 6, y + 4, f"{count:.0f}", anchor="end")
        count += step


def _legend() -> Iterable[str]:
    y = _HEIGHT - 12
    for x, color, text in (
        (_LEFT, _ACCEPTED, "orders accepted a second"),
        (_LEFT + 220, _TRADES, "trades settled a second"),
        (_LEFT + 430, _FAULT, "fault, until everything is ready again"),
        (_LEFT + 720, "#aaaaaa", "the load rests for the oracle"),
    ):
        yield f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{color}"/>'
        yield _text(x + 18, y, text)


def _span(axes: _Axes, begin_s: float, end_s: float, color: str, opacity: float) -> str:
    x, width = axes.x(begin_s), axes.x(end_s) - axes.x(begin_s)
    return (
        f'<rect x="{x}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT - _TOP - _BOTTOM}"'
        f' fill="{color}" fill-opacity="{opacity}"/>'
    )


def _line(axes: _Axes, counts: Sequence[int], color: str) -> str:
    points = " ".join(f"{axes.x(second + 0.5)},{axes.y(count)}" for second, count in enumerate(counts))
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.2"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    turn: int = 0,
    size: int = 12,
    color: str = "#333333",
) -> str:
    turned = f' transform="rotate({turn} {x} {y})"' if turn else ""
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{color}"'
    return f'<text x="{x}" y="{y}" {style}{turned}>{text}</text>'
