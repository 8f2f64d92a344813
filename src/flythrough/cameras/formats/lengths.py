"""How long a length of 1 is, in files that do not say it.

A scene that was reconstructed from pictures has an arbitrary scale. Median depths are what a path
for another photo should count in, so the file's own scene is laid on the photo's:

1. Where the file has points, the median depth of those that the first camera sees is 1.
2. Else, where the views meet in a point before every camera (an orbit, a dome of views), the depth
   of that point before the first camera is 1.
3. Else the camera farthest from the first one is half a median depth away.
"""

from __future__ import annotations

import numpy as np

from flythrough.cameras.formats.fixed import FixedCameras
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.errors import CameraError

FARTHEST = 0.5
"""Median depths between the first camera and the farthest, where nothing shows how deep it is."""

_LEAST_TURN = np.deg2rad(3.0)
_LARGEST_MISS = 0.2
_NO_MOTION = 1e-9


def check_scale(scale: float) -> float:
    """``scale`` after checking that it is finite and above 0, else a CameraError."""
    if not np.isfinite(scale) or scale <= 0:
        raise CameraError(
            f"The camera scale {scale:g} is not a finite number above 0; give how many median "
            "depths a length of 1 in the file is."
        )
    return scale


def usual_scale(cameras: FixedCameras) -> tuple[float, str]:
    """Median depths in a length of 1, and why, as half a sentence."""
    if cameras.median_depth is not None:
        return (
            1 / cameras.median_depth,
            f"the points that its first camera sees have the median depth "
            f"{cameras.median_depth:.4g}",
        )
    poses = cameras.trajectory.world_from_camera
    places, views = poses[:, :3, 3], poses[:, :3, 2]
    farthest = float(np.linalg.norm(places - places[0], axis=1).max())
    if farthest < _NO_MOTION:
        return 1.0, "its cameras stay in one place"
    depth = meeting_depth(places, views)
    if depth is not None:
        return 1 / depth, f"its views meet {depth:.4g} before the first camera: 1 median depth"
    return (
        FARTHEST / farthest,
        f"its cameras come {farthest:.4g} away from the first: {FARTHEST:g} median depths",
    )


def in_median_depths(cameras: FixedCameras, scale: float | None) -> Trajectory:
    """The cameras with ``scale`` median depths in a length of 1 (None: :func:`usual_scale`)."""
    factor = usual_scale(cameras)[0] if scale is None else check_scale(scale)
    return cameras.trajectory.scaled(factor, LengthUnit.MEDIAN_DEPTH)


def meeting_depth(places: np.ndarray, views: np.ndarray) -> float | None:
    """Depth before the first camera of the point nearest to all optical axes (least squares).

    Args:
        places: [T,3] camera centres; views: [T,3] unit directions of their optical axes.

    Returns:
        None where the axes are nearly parallel (turned by less than 3 degrees about their mean),
        the point lies behind a camera, or the axes miss it by more than a fifth of its depth.
    """
    across = np.eye(3) - views[:, :, None] * views[:, None, :]
    normal = across.mean(0)
    if np.linalg.eigvalsh(normal)[0] < np.sin(_LEAST_TURN) ** 2:
        return None
    point = np.linalg.solve(normal, (across @ places[:, :, None])[..., 0].mean(0))
    depths = ((point - places) * views).sum(1)
    miss = np.sqrt(((across @ (point - places)[:, :, None])[..., 0] ** 2).sum(1).mean())
    if depths.min() <= 0 or miss > _LARGEST_MISS * float(np.median(depths)):
        return None
    return float(depths[0])
