"""Named camera moves, usable as steps of the path language with an optional amount.

The names are the ones that film crews and other camera-controlled video tools use. An amount is a
length in multiples of the median depth, or an angle; leaving it out takes the listed default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from flythrough.cameras import motions
from flythrough.cameras.motions import Motion

Kind = Literal["length", "angle", "none"]


@dataclass(frozen=True)
class Preset:
    """A named move: the kind of its amount, the default (radians for angles), what it does."""

    kind: Kind
    default: float
    build: Callable[[float], Motion]
    summary: str


PRESETS: MappingProxyType[str, Preset] = MappingProxyType(
    {
        "dolly-in": Preset(
            "length", 0.4, lambda a: motions.straight(0, 0, a), "straight toward the subject"
        ),
        "dolly-out": Preset(
            "length", 0.4, lambda a: motions.straight(0, 0, -a), "straight back from the subject"
        ),
        "truck-left": Preset(
            "length", 0.3, lambda a: motions.straight(-a, 0, 0), "sideways to the left"
        ),
        "truck-right": Preset(
            "length", 0.3, lambda a: motions.straight(a, 0, 0), "sideways to the right"
        ),
        "pedestal-up": Preset("length", 0.2, lambda a: motions.straight(0, -a, 0), "straight up"),
        "pedestal-down": Preset(
            "length", 0.2, lambda a: motions.straight(0, a, 0), "straight down"
        ),
        "pan-left": Preset("angle", math.radians(20), lambda a: motions.turn(y=-a), "look left"),
        "pan-right": Preset("angle", math.radians(20), lambda a: motions.turn(y=a), "look right"),
        "tilt-up": Preset("angle", math.radians(15), lambda a: motions.turn(x=a), "look up"),
        "tilt-down": Preset("angle", math.radians(15), lambda a: motions.turn(x=-a), "look down"),
        "orbit": Preset("angle", math.radians(30), motions.orbit, "circle leftward, subject kept"),
        "spiral": Preset("length", 0.15, motions.spiral, "two widening turns, subject kept"),
        "lemniscate": Preset("length", 0.2, motions.lemniscate, "figure of eight, subject kept"),
        "dolly-zoom": Preset(
            "length", 0.4, motions.dolly_zoom, "forward while zooming out, subject keeps its size"
        ),
        "crane": Preset(
            "length", 0.3, lambda a: motions.toward(0, -a, 0), "up, looking down at the subject"
        ),
        "reveal": Preset(
            "length",
            0.4,
            lambda a: motions.toward(0, -0.5 * a, -a),
            "back and up, subject kept",
        ),
        "hero": Preset("length", 0.3, motions.hero, "close in from below on an arc"),
        "static": Preset("none", 0.0, lambda _: motions.hold(), "stand still"),
    }
)
