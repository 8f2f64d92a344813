"""A picture of a trajectory: seen from above and from the side, with view cones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from flythrough.cameras import pose as se3
from flythrough.cameras.trajectory import LengthUnit, Trajectory

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Draw

_PANEL = 560
_MARGIN = 62
_HEAD = 56
_FOOT = 44
_FINE = 2  # drawn this much larger, then reduced, for smooth lines
_CONES = 14
_PAPER, _FIELD, _GRID, _AXIS = (255, 255, 255), (247, 248, 250), (224, 227, 233), (176, 182, 192)
_INK, _FAINT = (38, 43, 54), (104, 112, 126)
_COLOURS = np.array([(36, 88, 196), (110, 62, 178), (204, 50, 110), (236, 120, 32)], float)
_UNITS = {
    LengthUnit.SCENE: "scene units",
    LengthUnit.METRE: "m",
    LengthUnit.MEDIAN_DEPTH: "median depths",
}


@dataclass(frozen=True)
class _Panel:
    """One view: which world axes run right and up (with sign), and where it lies in the picture."""

    title: str
    right: tuple[int, float, str]
    up: tuple[int, float, str]
    left: int
    centre: NDArray[np.float64]
    half: float

    def pixels(self, points: np.ndarray) -> list[tuple[float, float]]:
        """World points [N,3] as pixels of the enlarged picture."""
        scale = (_PANEL / 2) / self.half * _FINE
        flat = self.flat(points) - self.centre
        x = (self.left + _PANEL / 2) * _FINE + flat[:, 0] * scale
        y = (_HEAD + _PANEL / 2) * _FINE - flat[:, 1] * scale
        return list(zip(x.tolist(), y.tolist(), strict=True))

    def flat(self, points: np.ndarray) -> np.ndarray:
        """World points [N,3] as (right, up) coordinates [N,2]."""
        return np.stack(
            [points[:, self.right[0]] * self.right[1], points[:, self.up[0]] * self.up[1]], axis=-1
        )


def plot_trajectory(trajectory: Trajectory) -> Image.Image:
    """Draw the path from above (x right, z up) and from the side (z right, height up).

    Poses are shown relative to the first camera. The colour runs from blue (start) to orange
    (end); view cones show some cameras' field of view, wider for a shorter focal length.

    Returns:
        RGB image, 1306x660.
    """
    poses = se3.relative_to_first(trajectory.world_from_camera)
    reach = float(np.ptp(poses[:, :3, 3], axis=0).max())
    cones = _cones(poses, _widths(trajectory), 0.13 * max(reach, 0.3))
    panels = _panels(poses, cones)
    size = (2 * _PANEL + 3 * _MARGIN, _PANEL + _HEAD + _FOOT)
    image = Image.new("RGB", (size[0] * _FINE, size[1] * _FINE), _PAPER)
    draw = ImageDraw.Draw(image, "RGBA")
    for panel in panels:
        _field(draw, panel, _UNITS[trajectory.unit])
        _path(draw, panel, poses, cones)
    seconds = trajectory.times[-1] - trajectory.times[0]
    caption = f"{len(trajectory)} frames, {seconds:.2f} s"
    right = (panels[-1].left + _PANEL) * _FINE
    draw.text((right, 30 * _FINE), caption, _FAINT, _font(14), anchor="rm")
    return image.resize(size, Image.Resampling.LANCZOS)


def _widths(trajectory: Trajectory) -> np.ndarray:
    """Tangent of half the horizontal field of view [T]; 0.5 stands for an unknown photo."""
    if trajectory.intrinsics is not None and trajectory.size is not None:
        wide = trajectory.size[1] / 2 / trajectory.intrinsics[:, 0, 0]
    elif trajectory.focal_scale is not None:
        wide = 0.5 / trajectory.focal_scale
    else:
        wide = np.full(len(trajectory), 0.5)
    return np.clip(wide, 0.05, 2.0)


def _cones(poses: np.ndarray, widths: np.ndarray, depth: float) -> dict[int, np.ndarray]:
    """Apex and four corners [5,3] of the view cones of some frames, by frame."""
    chosen = np.unique(np.linspace(0, len(poses) - 1, min(_CONES, len(poses))).round().astype(int))
    shape = np.array([(0, 0, 0), (-1, -0.6, 1), (1, -0.6, 1), (1, 0.6, 1), (-1, 0.6, 1)])
    return {
        int(i): (shape * [widths[i], widths[i], 1.0] * depth) @ poses[i, :3, :3].T + poses[i, :3, 3]
        for i in chosen
    }


def _panels(poses: np.ndarray, cones: dict[int, np.ndarray]) -> tuple[_Panel, _Panel]:
    points = np.concatenate([poses[:, :3, 3], *cones.values()])
    views = (
        ("from above", (0, 1.0, "x, right"), (2, 1.0, "z, forward")),
        ("from the side", (2, 1.0, "z, forward"), (1, -1.0, "height (-y)")),
    )
    made = []
    for index, (title, right, up) in enumerate(views):
        left = _MARGIN + index * (_PANEL + _MARGIN) + (_MARGIN // 4)
        panel = _Panel(title, right, up, left, np.zeros(2), 1.0)
        flat = panel.flat(points)
        centre, half = (flat.max(0) + flat.min(0)) / 2, np.ptp(flat, axis=0).max() / 2
        made.append(_Panel(title, right, up, left, centre, float(half)))
    # One scale for both views, so that lengths compare.
    half = max(panel.half for panel in made) * 1.12
    first, second = (_Panel(p.title, p.right, p.up, p.left, p.centre, half) for p in made)
    return first, second


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _FINE)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between ``low`` and ``high``, five to ten of them."""
    rough = (high - low) / 7
    unit = 10 ** math.floor(math.log10(rough))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= rough * 0.75)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _field(draw: Draw, panel: _Panel, unit: str) -> None:
    """Background, grid, tick labels, axis names and title of one panel."""
    f, x0, y0 = _FINE, panel.left * _FINE, _HEAD * _FINE
    x1, y1 = x0 + _PANEL * f, y0 + _PANEL * f
    draw.rectangle((x0, y0, x1, y1), fill=_FIELD)
    scale = _PANEL / 2 / panel.half * f
    for value in _ticks(panel.centre[0] - panel.half, panel.centre[0] + panel.half):
        x = (x0 + x1) / 2 + (value - panel.centre[0]) * scale
        draw.line((x, y0, x, y1), fill=_AXIS if value == 0 else _GRID, width=f)
        draw.text((x, y1 + 5 * f), f"{value:.4g}", _FAINT, _font(12), anchor="mt")
    for value in _ticks(panel.centre[1] - panel.half, panel.centre[1] + panel.half):
        y = (y0 + y1) / 2 - (value - panel.centre[1]) * scale
        draw.line((x0, y, x1, y), fill=_AXIS if value == 0 else _GRID, width=f)
        draw.text((x0 - 6 * f, y), f"{value:.4g}", _FAINT, _font(12), anchor="rm")
    draw.text((x0, 22 * f), panel.title.capitalize(), _INK, _font(17), anchor="lm")
    draw.text((x0, 43 * f), f"up: {panel.up[2]} ({unit})", _FAINT, _font(12), anchor="lm")
    name = f"across: {panel.right[2]} ({unit})"
    draw.text((x1, y1 + 24 * f), name, _FAINT, _font(12), anchor="rt")


def _colour(progress: float) -> tuple[int, int, int]:
    at = progress * (len(_COLOURS) - 1)
    low = min(int(at), len(_COLOURS) - 2)
    r, g, b = (_COLOURS[low] + (at - low) * (_COLOURS[low + 1] - _COLOURS[low])).round().astype(int)
    return int(r), int(g), int(b)


def _path(draw: Draw, panel: _Panel, poses: np.ndarray, cones: dict[int, np.ndarray]) -> None:
    """View cones, then the path, then its two marked ends."""
    f, last = _FINE, max(len(poses) - 1, 1)
    for frame, corners in cones.items():
        colour = _colour(frame / last)
        apex, *rim = panel.pixels(corners)
        for a, b in zip(rim, [*rim[1:], rim[0]], strict=True):
            draw.polygon((apex, a, b), fill=(*colour, 16))
        for a, b in zip(rim, [*rim[1:], rim[0]], strict=True):
            draw.line((apex, a), fill=(*colour, 150), width=f)
            draw.line((a, b), fill=(*colour, 150), width=f)
    line = panel.pixels(poses[:, :3, 3])
    for index, (a, b) in enumerate(pairwise(line)):
        draw.line((a, b), fill=_colour(index / last), width=4 * f, joint="curve")
        draw.ellipse(
            (b[0] - 2 * f, b[1] - 2 * f, b[0] + 2 * f, b[1] + 2 * f), _colour(index / last)
        )
    near = math.dist(line[0], line[-1]) < 14 * f
    for name, (x, y), progress in (("end", line[-1], 1.0), ("start", line[0], 0.0)):
        r = (9 if near and name == "end" else 6) * f
        colour = _colour(progress)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=_PAPER, width=2 * f)
        above = near and name == "end"
        place, anchor = ((x, y - 12 * f), "mb") if above else ((x, y + 11 * f), "mt")
        halo = 2 * f
        draw.text(
            place, name, colour, _font(14), anchor=anchor, stroke_width=halo, stroke_fill=_FIELD
        )
