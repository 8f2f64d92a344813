"""Named natural colours (sRGB) from which materials draw, so that captions can say what is seen."""

from __future__ import annotations

from typing import NamedTuple

RGB = tuple[float, float, float]


class Colour(NamedTuple):
    """A colour word and its sRGB value in [0,1]."""

    name: str
    rgb: RGB


def _named(*pairs: tuple[str, RGB]) -> tuple[Colour, ...]:
    return tuple(Colour(name, rgb) for name, rgb in pairs)


PAINT = _named(
    ("white", (0.90, 0.89, 0.86)),
    ("cream", (0.91, 0.86, 0.74)),
    ("pale grey", (0.77, 0.78, 0.78)),
    ("sage green", (0.66, 0.72, 0.62)),
    ("pale blue", (0.67, 0.75, 0.81)),
    ("sand", (0.82, 0.74, 0.61)),
    ("blush pink", (0.86, 0.74, 0.69)),
    ("ochre", (0.80, 0.65, 0.40)),
    ("slate blue", (0.43, 0.52, 0.60)),
    ("terracotta", (0.74, 0.50, 0.38)),
    ("olive", (0.55, 0.56, 0.40)),
    ("charcoal", (0.36, 0.37, 0.39)),
)
FABRIC = _named(
    ("grey", (0.56, 0.56, 0.56)),
    ("navy blue", (0.18, 0.25, 0.38)),
    ("rust red", (0.60, 0.28, 0.20)),
    ("mustard", (0.80, 0.62, 0.25)),
    ("forest green", (0.22, 0.36, 0.27)),
    ("teal", (0.20, 0.44, 0.46)),
    ("beige", (0.80, 0.73, 0.62)),
    ("brown", (0.42, 0.30, 0.22)),
    ("dusty rose", (0.72, 0.50, 0.48)),
    ("white", (0.88, 0.87, 0.84)),
    ("plum", (0.38, 0.24, 0.34)),
    ("sky blue", (0.48, 0.65, 0.78)),
)
WOOD = _named(
    ("oak", (0.70, 0.53, 0.34)),
    ("pine", (0.82, 0.66, 0.44)),
    ("walnut", (0.43, 0.29, 0.19)),
    ("cherry", (0.58, 0.34, 0.21)),
    ("ash", (0.78, 0.70, 0.58)),
    ("dark", (0.27, 0.19, 0.14)),
    ("white painted", (0.86, 0.85, 0.82)),
)
BRICK = _named(
    ("red brick", (0.62, 0.32, 0.24)),
    ("brown brick", (0.50, 0.36, 0.28)),
    ("yellow brick", (0.78, 0.66, 0.46)),
    ("grey brick", (0.55, 0.54, 0.52)),
)
STONE = _named(
    ("grey", (0.58, 0.57, 0.55)),
    ("sandstone", (0.74, 0.64, 0.50)),
    ("dark", (0.38, 0.37, 0.37)),
    ("limestone", (0.80, 0.77, 0.70)),
    ("reddish", (0.60, 0.45, 0.38)),
)
LEAF = _named(
    ("green", (0.30, 0.44, 0.18)),
    ("dark green", (0.20, 0.34, 0.17)),
    ("bright green", (0.44, 0.56, 0.22)),
    ("autumn", (0.72, 0.46, 0.16)),
    ("red autumn", (0.62, 0.26, 0.14)),
    ("olive", (0.42, 0.45, 0.24)),
)
GRASS = _named(
    ("green", (0.38, 0.50, 0.22)),
    ("dry", (0.66, 0.60, 0.34)),
    ("lush", (0.30, 0.46, 0.18)),
)
CAR = _named(
    ("red", (0.62, 0.13, 0.12)),
    ("blue", (0.16, 0.28, 0.50)),
    ("white", (0.88, 0.88, 0.87)),
    ("black", (0.10, 0.10, 0.11)),
    ("silver", (0.66, 0.68, 0.70)),
    ("yellow", (0.85, 0.68, 0.18)),
    ("green", (0.18, 0.36, 0.26)),
)
VIVID = _named(
    ("red", (0.74, 0.20, 0.16)),
    ("orange", (0.86, 0.48, 0.16)),
    ("yellow", (0.90, 0.74, 0.24)),
    ("green", (0.26, 0.50, 0.26)),
    ("blue", (0.20, 0.36, 0.62)),
    ("turquoise", (0.22, 0.58, 0.58)),
    ("white", (0.90, 0.90, 0.88)),
    ("purple", (0.42, 0.28, 0.50)),
    ("pink", (0.84, 0.52, 0.56)),
)


def mixed(a: RGB, b: RGB, share: float) -> RGB:
    """``a`` moved towards ``b`` by ``share``."""
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def scaled(a: RGB, gain: float) -> RGB:
    """``a`` brightened or darkened, kept in [0,1]."""
    return (min(a[0] * gain, 1.0), min(a[1] * gain, 1.0), min(a[2] * gain, 1.0))
