"""What readers of formats with a fixed meaning give back: NeRF, nerfstudio, COLMAP, RealEstate10K.

Such a format fixes axes and direction, so no convention is asked for, but states no unit of length
(``formats.lengths`` finds one).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flythrough.cameras.intrinsics import check_size, refitted
from flythrough.cameras.trajectory import DEFAULT_STEP, LengthUnit, Trajectory
from flythrough.errors import CameraError

_SQUARE = 0.02
"""Share by which focal lengths of one picture may differ before it is worth a word."""

_LARGEST = 1e300
_FARTHEST = 1e12


@dataclass(frozen=True, eq=False)
class FixedCameras:
    """Cameras of one file.

    Attributes:
        trajectory: in unit SCENE, which stands for the file's own lengths.
        kind: the format's name in messages.
        median_depth: of the points that the first camera sees, in the file's lengths; None where
            the file has none.
        notes: what was left out or assumed.
    """

    trajectory: Trajectory
    kind: str
    median_depth: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lens:
    """A pinhole camera in pixels of a picture of ``width`` x ``height``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: float
    height: float


def fixed_cameras(
    poses: np.ndarray,
    lenses: Sequence[Lens] | None,
    kind: str,
    *,
    times: np.ndarray | None = None,
    median_depth: float | None = None,
    notes: Sequence[str] = (),
) -> FixedCameras:
    """Cameras [T,4,4] ``world_from_camera`` in OpenCV axes with a lens each (None: the photo's).

    Pictures of several sizes are brought to the size of the first one as photos are, by one scale
    factor and a centred crop. Without ``times`` [T] seconds there are 16 cameras a second.

    Raises:
        CameraError: poses or lenses that are no cameras.
    """
    far = np.abs(poses[:, :3, 3]).max(1) > _FARTHEST
    if far.any():
        raise CameraError(
            f"camera {int(np.argmax(far))} stands beyond {_FARTHEST:g} lengths; correct its "
            "translation."
        )
    said = list(notes)
    matrices, size = None, None
    if lenses is not None:
        matrices, size, more = _matrices(lenses)
        said += more
    if len(poses) == 1:
        said.append("it holds one camera, so the picture stands still")
    trajectory = Trajectory(
        world_from_camera=poses,
        times=np.arange(len(poses)) * DEFAULT_STEP if times is None else times,
        unit=LengthUnit.SCENE,
        intrinsics=matrices,
        size=size,
    )
    return FixedCameras(trajectory, kind, median_depth, tuple(said))


def _matrices(lenses: Sequence[Lens]) -> tuple[np.ndarray, tuple[int, int], list[str]]:
    sizes = [check_size((lens.height, lens.width)) for lens in lenses]
    notes = []
    if len(set(sizes)) > 1:
        notes.append(
            "its pictures differ in size: all cameras are brought to the size of the first, "
            f"{sizes[0][0]}x{sizes[0][1]}"
        )
    matrices = np.array(
        [[[lens.fx, 0, lens.cx], [0, lens.fy, lens.cy], [0, 0, 1.0]] for lens in lenses]
    )
    ratios = np.array([lens.fx / lens.fy if lens.fy else 1.0 for lens in lenses])
    worst = float(ratios[np.argmax(np.abs(ratios - 1))])
    if abs(worst - 1) > _SQUARE:
        notes.append(
            f"its pixels are not square (fx is {worst:.3g} fy): the video is stretched alike"
        )
    fitted = [
        k if size == sizes[0] else refitted(k, size, sizes[0])
        for k, size in zip(matrices, sizes, strict=True)
    ]
    return np.array(fitted), sizes[0], notes


def natural_key(name: str) -> list[str | int]:
    """Sorts names as people count: ``frame9`` before ``frame10``."""
    return [int(p) if n % 2 else p for n, p in enumerate(re.split(r"(\d+)", name))]


def not_empty(items: object, key: str) -> list[object]:
    """``items`` as a list that has at least one entry, or a CameraError."""
    if not isinstance(items, list):
        raise CameraError(f"{key!r} is not a list; write one entry for each camera.")
    if not items:
        raise CameraError(f"{key!r} is empty; write at least one camera.")
    return items


def number(value: object, key: str) -> float:
    """A finite number out of a JSON value, or a CameraError."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if not numeric or not -_LARGEST < value < _LARGEST:  # type: ignore[operator]
        raise CameraError(f"{key!r} is {str(value)[:40]!r}; write a finite number.")
    return float(value)  # type: ignore[arg-type]
