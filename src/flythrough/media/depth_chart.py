"""A depth map as a picture that explains itself: colours with their unit, what was left out."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flythrough.media.picture import depth_colours, depth_picture, depth_range

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Draw

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_TALL = 360
_BAR, _LEGEND, _MARGIN, _LINE = 18, 132, 14, 19
_PAPER, _INK, _FAINT, _LEFT_OUT = (24, 24, 24), (235, 235, 235), (165, 165, 165), (90, 90, 90)
_STEPS = (
    (1, 2, 5),
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9),
)
_ROOM = 26
"""Pixels between two numbers beside the bar."""


def depth_chart(depth: np.ndarray, valid: np.ndarray, median: float, unit: str) -> np.ndarray:
    """Depth in the colours of :func:`~flythrough.media.picture.depth_picture` with a legend.

    Small maps are enlarged by a whole number, without blending.

    Args:
        depth: [H,W] z-depth.
        valid: bool [H,W]; the rest is grey.
        median: the depth that is 1 in camera paths, marked on the bar.
        unit: of ``depth``, for the legend: m, scene units.

    Returns:
        uint8 [H',W',3].

    Raises:
        MediaError: not [H,W].
    """
    shown = np.where(valid, depth, 0.0)
    picture = depth_picture(shown)
    times = max(1, math.ceil(_TALL / len(picture)))
    picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    height, width = picture.shape[:2]
    font = ImageFont.load_default(14)
    left_out = 1 - float((shown > 0).mean())
    lines = _wrapped(_sentences(median, unit, left_out), width + _LEGEND - 2 * _MARGIN, font)
    size = (width + _LEGEND, height + len(lines) * _LINE + _MARGIN)
    canvas = Image.new("RGB", size, _PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    draw = ImageDraw.Draw(canvas)
    if (shown > 0).any():
        low, high = depth_range(shown)
        _bar(canvas, draw, (width + _MARGIN, height), (low, high), median, unit)
    for number, line in enumerate(lines):
        draw.text((_MARGIN, height + _MARGIN // 2 + number * _LINE), line, _INK, font)
    return np.asarray(canvas)


def _sentences(median: float, unit: str, left_out: float) -> str:
    text = f"Depth in {'metres' if unit == 'm' else unit}; the bar runs from near (below) to far. "
    text += f"The median, {_number(median)}, is a length of 1 in camera paths."
    if left_out == 1:
        return "Grey: no pixel has a depth that can be relied on."
    if left_out >= 0.0005:
        text += f" Grey: {100 * left_out:.1f} % without a depth that can be relied on."
    return text


def _bar(
    canvas: Image.Image,
    draw: Draw,
    corner: tuple[int, int],
    ends: tuple[float, float],
    median: float,
    unit: str,
) -> None:
    """The colour bar beside a picture, in equal ratios of depth as its colours are; ``corner`` is
    its left side and the picture's height."""
    left, height = corner
    top, bottom = 3 * _MARGIN, height - _MARGIN
    font, small = ImageFont.load_default(14), ImageFont.load_default(13)
    colours = depth_colours(np.linspace(0, 1, bottom - top))
    canvas.paste(Image.fromarray(colours[:, None].repeat(_BAR, axis=1)), (left, top))
    low, high = ends
    draw.text((left, top - _MARGIN), unit, _INK, font, anchor="lb")

    def row(value: float) -> float:
        if high <= low * (1 + 1e-9):
            return float(top)
        return top + (bottom - 1 - top) * math.log(high / value) / math.log(high / low)

    right = left + _BAR
    marked = row(min(max(median, low), high))
    taken = [marked]
    for value in (high, low, *_ticks(low, high, (bottom - top) // _ROOM)):
        at = row(value)
        draw.line((right, at, right + 4, at), _FAINT)
        if min(abs(at - other) for other in taken) >= _ROOM * 0.7:
            draw.text((right + 8, at), _number(value), _FAINT, small, anchor="lm")
            taken.append(at)
    draw.polygon(((right + 1, marked), (right + 8, marked - 5), (right + 8, marked + 5)), _INK)
    draw.text((right + 11, marked), f"{_number(median)} median", _INK, small, anchor="lm")


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from ``low`` to ``high``: as many of a kind as have room."""
    found: list[float] = []
    if high <= low:
        return found
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    for steps in _STEPS:
        values = [step * 10.0**decade for decade in decades for step in steps]
        values = [value for value in values if low <= value <= high]
        span = math.log(high / low)
        gaps = [math.log(b / a) / span for a, b in pairwise(values)]
        if len(values) <= most and min(gaps, default=1.0) * most >= 0.7:
            found = values
    return found


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _wrapped(text: str, width: int, font: _Font) -> list[str]:
    """``text`` in lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
