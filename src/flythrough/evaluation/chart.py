"""Line charts as SVG text, with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 560, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 34, 40
_COLOURS = ("#2458c4", "#cc3268", "#ec7820", "#2f9e63", "#6e3eb2", "#0f8fa8", "#8a6d1a", "#68707e")
_INK, _FAINT, _GRID = "#262b36", "#68707e", "#e0e3e9"


def line_chart(
    title: str, across: str, lines: Mapping[str, Sequence[float | None]], first: int = 0
) -> str:
    """Curves over frames ``first``, ``first`` + 1, ... in one picture with a legend.

    Values below 0 are drawn at 0, and a curve leads straight on past a None. Colours repeat after
    eight curves.

    Returns:
        an ``<svg>`` element.
    """
    known = [value for line in lines.values() for value in line if value is not None]
    highest = max(known, default=1.0)
    step = _step(highest)
    top = max(step, step * math.ceil(highest / step))
    count = max((len(line) for line in lines.values()), default=1)

    def x(index: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * index / max(count - 1, 1)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * max(value, 0.0) / top

    parts = [_text(_LEFT, 20, title, _INK, 15)]
    for number in range(round(top / step) + 1):
        value = number * step
        parts.append(
            f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="{_GRID}"/>'
            + _text(_LEFT - 6, y(value) + 4, f"{value:.4g}", _FAINT, 11, "end")
        )
    for index in range(0, count, max(1, count // 4)):
        parts.append(_text(x(index), _HEIGHT - 22, str(first + index), _FAINT, 11, "middle"))
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 6, across, _FAINT, 11, "end"))
    legend = []
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(
            f"{x(index):.1f},{y(value):.1f}"
            for index, value in enumerate(line)
            if value is not None
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        place = _HEIGHT + 8 + 18 * number
        legend.append(
            f'<path d="M{_LEFT} {place}h22" stroke="{colour}" stroke-width="3"/>'
            + _text(_LEFT + 30, place + 4, name, _INK, 12)
        )
    height = _HEIGHT + 12 + 18 * len(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" font-family="sans-serif">{"".join(parts + legend)}</svg>'
    )


def _step(highest: float) -> float:
    """A round distance of grid lines, three to six of them below ``highest``."""
    if highest <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(highest / 4))
    return next(m * unit for m in (1, 2, 5, 10) if m * unit >= highest / 6)


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
