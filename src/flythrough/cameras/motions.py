"""Single camera moves as functions of progress, in the frame of the camera where they start.

A :class:`Motion` maps progress [N] in [0, 1] to poses [N,4,4] (OpenCV axes, start = identity) and
to multipliers [N] of the focal length. Moves around a subject take the point at depth 1 straight
ahead, so their lengths only make sense in multiples of the median depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flythrough.cameras import pose as se3

SUBJECT = np.array([0.0, 0.0, 1.0])
_FINE = 2049


@dataclass(frozen=True)
class Motion:
    """One move: ``poses`` and ``focal`` of progress; ``around_subject`` rules out metres."""

    poses: Callable[[np.ndarray], np.ndarray]
    focal: Callable[[np.ndarray], np.ndarray] | None = None
    around_subject: bool = False


def hold() -> Motion:
    """Stand still."""
    return Motion(lambda s: se3.identity(len(s)))


def straight(x: float, y: float, z: float) -> Motion:
    """Move by (x right, y down, z forward) without turning."""
    return Motion(lambda s: se3.from_parts(np.eye(3), s[:, None] * np.array([x, y, z])))


def turn(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Motion:
    """Turn on the spot about an axis of the camera by its length in radians."""
    axis = np.array([x, y, z])
    return Motion(lambda s: se3.from_parts(se3.so3_exp(s[:, None] * axis), np.zeros((len(s), 3))))


def zoom(factor: float) -> Motion:
    """Multiply the focal length by ``factor`` at a constant rate per frame."""
    return Motion(lambda s: se3.identity(len(s)), lambda s: factor**s)


def orbit(angle: float) -> Motion:
    """Travel on a level circle around the subject; a positive angle travels to the left."""

    def poses(s: np.ndarray) -> np.ndarray:
        rotation = se3.rotation_y(angle * s)
        return se3.from_parts(rotation, SUBJECT - rotation @ SUBJECT)

    return Motion(poses, around_subject=True)


def dolly_zoom(amount: float) -> Motion:
    """Move forward by ``amount`` (below 1) while the subject keeps its size in the picture."""
    return Motion(straight(0, 0, amount).poses, lambda s: 1 - amount * s, around_subject=True)


def gazing(curve: Callable[[np.ndarray], np.ndarray]) -> Motion:
    """Follow ``curve`` ([N] to [N,3], starting at 0) at constant speed with the subject centred."""
    fine = np.linspace(0, 1, _FINE)
    length = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(curve(fine), axis=0), axis=1))]

    def poses(s: np.ndarray) -> np.ndarray:
        at = np.interp(s * length[-1], length, fine) if length[-1] > 0 else s
        return se3.look_at(curve(at), SUBJECT)

    return Motion(poses, around_subject=True)


def spiral(amount: float) -> Motion:
    """Two turns around the view axis, out to radius ``amount`` and back, ending slightly closer."""

    def curve(s: np.ndarray) -> np.ndarray:
        radius = amount * np.sin(np.pi * s)
        angle = 4 * np.pi * s
        return np.stack(
            [radius * np.cos(angle), radius * np.sin(angle), 0.5 * abs(amount) * s], axis=-1
        )

    return gazing(curve)


def lemniscate(amount: float) -> Motion:
    """A lying figure of eight, ``amount`` to either side, back to the start (Gerono's curve)."""

    def curve(s: np.ndarray) -> np.ndarray:
        t = 2 * np.pi * s
        return np.stack([amount * np.sin(t), amount / 2 * np.sin(2 * t), 0 * t], axis=-1)

    return gazing(curve)


def toward(x: float, y: float, z: float) -> Motion:
    """A straight line by (x, y, z) with the subject centred all the way."""
    return gazing(lambda s: s[:, None] * np.array([x, y, z]))


def hero(amount: float) -> Motion:
    """Close in by ``amount`` from slightly below while circling half a radian to the right."""

    def curve(s: np.ndarray) -> np.ndarray:
        angle, radius = 0.5 * s, 1 - amount * s
        return np.stack(
            [radius * np.sin(angle), 0.3 * amount * s, 1 - radius * np.cos(angle)], axis=-1
        )

    return gazing(curve)
