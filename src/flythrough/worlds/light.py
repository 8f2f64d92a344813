"""Lamps, windows and suns: sets the light, ambient, sky and fog of a scene."""

from __future__ import annotations

import math
from typing import NamedTuple

from flythrough.worlds import world as w
from flythrough.worlds.builder import SceneBuilder, Vector
from flythrough.worlds.palettes import RGB, mixed


def indoor(b: SceneBuilder, lamp: Vector, target: Vector, wall: RGB, reach: float) -> None:
    """A lamp (or window) at ``lamp`` that lights towards ``target``; light bounced off ``wall``."""
    dice = b.dice
    warm = mixed((1.0, 0.98, 0.94), (1.0, 0.86, 0.68), dice.unit())
    b.set(w.LIGHT, lamp)
    b.set(w.LIGHT_FALLOFF, 1 / reach**2)
    b.set(w.SHADOW_TARGET, target)
    b.set(w.SHADOW_TANGENT, 2.6)
    strength = dice.between(1.2, 1.9)
    b.colour(w.LIGHT_COLOUR, warm, strength)
    bounce = mixed(wall, (0.95, 0.92, 0.88), 0.6)
    b.colour(w.AMBIENT_UP, mixed(bounce, warm, 0.4), dice.between(0.50, 0.72))
    b.colour(w.AMBIENT_DOWN, mixed(bounce, (0.8, 0.68, 0.55), 0.4), dice.between(0.45, 0.60))
    b.colour(w.ZENITH, (0.5, 0.6, 0.75))
    b.colour(w.HORIZON, (0.8, 0.8, 0.8))
    b.set(w.CLOUD_SCALE, 0.1)
    b.set(w.EXPOSURE, dice.between(1.05, 1.3))


class _Look(NamedTuple):
    """Sun colour and gain, sky light and gain, zenith, horizon, cloud cover, haze in metres."""

    sun: RGB
    gain: float
    ambient: RGB
    sky_gain: float
    zenith: RGB
    horizon: RGB
    cover: float
    haze: float


# fmt: off
_LOOKS = {
    "sunny": _Look((1.0, 0.95, 0.86), 2.0, (0.68, 0.80, 0.98), 0.85,
                   (0.26, 0.47, 0.80), (0.74, 0.84, 0.93), 0.75, 380),
    "cloudy": _Look((0.95, 0.95, 0.96), 0.55, (0.84, 0.88, 0.93), 1.25,
                    (0.56, 0.63, 0.71), (0.80, 0.83, 0.86), 1.0, 240),
    "evening": _Look((1.0, 0.80, 0.58), 1.9, (0.72, 0.70, 0.86), 1.25,
                     (0.33, 0.42, 0.66), (0.95, 0.78, 0.62), 0.6, 260),
    "hazy": _Look((1.0, 0.95, 0.88), 1.05, (0.80, 0.86, 0.94), 1.0,
                  (0.48, 0.62, 0.79), (0.84, 0.87, 0.89), 0.5, 170),
}
# fmt: on


def outdoor(b: SceneBuilder, target: Vector, radius: float, view_yaw: float) -> str:
    """Sun, sky and haze; returns words for the weather. The sun never stands before the camera."""
    dice = b.dice
    weather = dice.pick(("sunny", "sunny", "sunny", "sunny", "cloudy", "evening", "hazy"))
    height = {"evening": dice.between(0.25, 0.45)}.get(weather, dice.between(0.6, 1.1))
    side = view_yaw + dice.pick((-1.0, 1.0)) * dice.between(0.7, 2.6)
    away = 160.0
    flat = math.cos(height)
    sun = (
        target[0] + away * flat * math.sin(side),
        target[1] - away * math.sin(height),
        target[2] + away * flat * math.cos(side),
    )
    b.set(w.LIGHT, sun)
    b.set(w.LIGHT_FALLOFF, 0.0)
    b.set(w.SHADOW_TARGET, target)
    b.set(w.SHADOW_TANGENT, radius / away)
    sun_colour, gain, ambient, sky_gain, zenith, horizon, cover, haze = _LOOKS[weather]
    b.colour(w.LIGHT_COLOUR, sun_colour, gain * dice.between(0.9, 1.1))
    b.colour(w.AMBIENT_UP, ambient, sky_gain)
    b.colour(w.AMBIENT_DOWN, mixed(horizon, (0.62, 0.55, 0.44), 0.6), sky_gain * 0.62)
    b.colour(w.ZENITH, dice.shade(zenith))
    b.colour(w.HORIZON, dice.shade(horizon, 0.04))
    b.set(w.CLOUD, cover * dice.between(0.5, 1.0))
    b.set(w.CLOUD_SCALE, dice.between(0.10, 0.22))
    b.set(w.FOG, 1 / (haze * dice.between(0.8, 1.3)))
    b.set(w.EXPOSURE, dice.between(1.05, 1.3))
    return {
        "cloudy": "under a cloudy sky",
        "evening": "in evening light",
        "hazy": "in hazy light",
    }.get(weather, "on a sunny day")
