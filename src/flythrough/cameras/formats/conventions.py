"""What the matrices of a camera file may mean, and how each meaning becomes ours.

Axes: ``opencv`` (x right, y down, z forward) or ``opengl`` (x right, y up, z backward). Direction:
``world-from-camera`` (also called camera-to-world) or ``camera-from-world`` (extrinsics). All four
are rigid transforms, so nothing in the numbers of a file tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError

AXES = ("opencv", "opengl")
DIRECTIONS = ("world-from-camera", "camera-from-world")
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Convention:
    """One of the four meanings; the default is the one that Flythrough has everywhere inside."""

    axes: str = AXES[0]
    direction: str = DIRECTIONS[0]

    def __str__(self) -> str:
        return f"{self.axes},{self.direction}"

    def to_ours(self, matrices: np.ndarray) -> np.ndarray:
        """``world_from_camera`` [T,4,4] with OpenCV axes of rigid ``matrices`` [T,4,4]."""
        poses = matrices if self.direction == DIRECTIONS[0] else se3.inverse(matrices)
        return poses @ _FLIP if self.axes == "opengl" else poses


def parse_convention(text: str) -> Convention:
    """``opengl``, ``camera-from-world`` or ``opengl,camera-from-world``: what is not said is as in
    :class:`Convention`.

    Raises:
        CameraError: an unknown word, or two for one matter.
    """
    found: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        kind = "axes" if word in AXES else "direction"
        if word not in AXES + DIRECTIONS or kind in found:
            found.clear()
            break
        found[kind] = word
    if not found:
        raise CameraError(
            f"The camera convention {text!r} is unknown; use one of {', '.join(AXES)}, or one of "
            f"{', '.join(DIRECTIONS)}, or both with a comma between them."
        )
    return Convention(**found)


def other_readings(trajectory: Trajectory) -> dict[Convention, Trajectory]:
    """What a trajectory read with the usual convention would be under each of the other three."""
    return {
        other: replace(trajectory, world_from_camera=other.to_ours(trajectory.world_from_camera))
        for axes, direction in product(AXES, DIRECTIONS)
        if (other := Convention(axes, direction)) != Convention()
    }
