"""``cameras.npz`` for other programs: intrinsics, both directions of the poses, size and rate.

Beside the usual names it holds those that Flythrough reads, so that the file is a camera path too.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from flythrough.cameras import pose
from flythrough.cameras.formats.writing import write_whole
from flythrough.cameras.trajectory import LengthUnit


def write_cameras(
    path: Path,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
    fps: float,
    *,
    metric: bool,
    median_depth: float,
) -> None:
    """Write the cameras of a video.

    Args:
        world_from_camera: [T,4,4] in scene units, OpenCV axes.
        intrinsics: [T,3,3] in pixels of ``size`` (height, width), centres at half-integers.
        metric: scene units are metres.
        median_depth: of the photo, the unit of paths without metres.

    The archive has ``K`` [T,3,3]; ``R`` [T,3,3] and ``t`` [T,3] world-to-camera; ``c2w`` [T,4,4];
    ``width``, ``height``, ``fps``. In the part for Flythrough lengths are metres or median depths.
    """
    back = pose.inverse(world_from_camera)
    poses = np.array(world_from_camera, np.float64)
    if not metric:
        poses[:, :3, 3] /= median_depth
    content = io.BytesIO()
    np.savez(
        content,
        K=intrinsics,
        R=back[:, :3, :3],
        t=back[:, :3, 3],
        c2w=world_from_camera,
        width=np.array(size[1]),
        height=np.array(size[0]),
        fps=np.array(float(fps)),
        camera_poses=poses,
        intrinsics=intrinsics,
        size=np.array(size),
        times=np.arange(len(poses)) / float(fps),
        unit=np.array(str(LengthUnit.METRE if metric else LengthUnit.MEDIAN_DEPTH)),
        convention=np.array("opencv"),
    )
    write_whole(path, content.getvalue())
