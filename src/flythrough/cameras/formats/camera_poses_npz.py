"""``camera_poses`` archives: the camera files that Warp-as-History's release reads.

The key ``camera_poses`` holds camera-to-world matrices with OpenCV axes. The release's files state
no length unit: its loader multiplies their translations by 0.1 times the median depth of the first
frame, and so does this reader. Files that Flythrough writes state their unit, times and convention,
which makes round trips exact.

What the matrices themselves cannot tell: OpenGL axes and world-to-camera matrices are rigid poses
too. A file may say what it holds under the key ``convention``, in the words of
``cameras.formats.conventions``; the reader may be told for one that does not.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from flythrough.cameras import pose as se3
from flythrough.cameras.formats.conventions import Convention, parse_convention
from flythrough.cameras.formats.reading import existing_file
from flythrough.cameras.formats.writing import write_whole
from flythrough.cameras.trajectory import DEFAULT_STEP, LengthUnit, Trajectory
from flythrough.disk import UNREADABLE_ARRAYS, array_fault
from flythrough.errors import CameraError

POSES = "camera_poses"
TRANSLATION_SCALE = 0.1
"""Median depths in a length of a file that states no unit, as the release's loader has it."""


def read(
    path: Path, *, translation_scale: float = TRANSLATION_SCALE, convention: str | None = None
) -> Trajectory:
    """The trajectory in an archive.

    Keys: ``camera_poses`` [T,4,4], [1,T,4,4] or [T,3,4] camera-to-world; optional ``intrinsics``
    [T,3,3] or [3,3] in pixels with ``size`` (height, width), ``fps`` or ``times`` [T] seconds
    (default 16 fps), ``unit`` (scene, metre, median-depth), ``focal_scale`` [T], ``convention``.

    Args:
        path: the ``.npz`` file.
        translation_scale: without a ``unit`` key, translations times this are multiples of the
            median depth of the first frame. Files with a ``unit`` key are read as they are.
        convention: what the matrices mean, such as "opengl" or "opengl,camera-from-world"; None
            takes what the file states, else "opencv,world-from-camera".

    Raises:
        CameraError: missing, unreadable or pickled file, missing key, unusable values, or a
            convention that is unknown or contradicts the file.
    """
    asked = None if convention is None else parse_convention(convention)
    arrays = _arrays(existing_file(path))
    if POSES not in arrays:
        raise CameraError(
            f"{path} has no key {POSES!r} (it has {sorted(arrays)}); store the camera-to-world "
            f"matrices [T,4,4] as {POSES!r}."
        )
    try:
        meant = _convention(arrays, asked)
        poses = se3.check_rigid(_poses(arrays[POSES]), POSES)
        poses = meant.to_ours(poses) if meant != Convention() else poses
        return _trajectory(arrays, poses, translation_scale)
    except CameraError as error:
        raise CameraError(f"In {path}: {error}") from None


def states(path: Path, key: str) -> bool:
    """Whether a file that :func:`read` takes has a key: ``convention``, ``unit``."""
    with np.load(path, allow_pickle=False) as archive:
        return key in archive.files


def write(path: Path, trajectory: Trajectory) -> None:
    """Write an archive with every field of the trajectory and its unit."""
    arrays: dict[str, Any] = {
        POSES: trajectory.world_from_camera,
        "times": trajectory.times,
        "fps": np.array(1.0 / trajectory.step()),
        "unit": np.array(str(trajectory.unit)),
        "convention": np.array("opencv"),
    }
    for name in ("intrinsics", "size", "focal_scale"):
        value = getattr(trajectory, name)
        if value is not None:
            arrays[name] = np.asarray(value)
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_whole(path, content.getvalue())


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.ndarray):
                raise ValueError("it holds a single array")
            return {key: archive[key] for key in archive.files}
    except UNREADABLE_ARRAYS as error:
        raise CameraError(
            f"The camera file {path} cannot be read: {array_fault(path, error)}; write it again as "
            "an npz archive of plain numeric arrays."
        ) from None


def _numeric(value: np.ndarray, name: str) -> np.ndarray:
    if value.dtype.kind not in "fiu":
        raise CameraError(f"{name} has type {value.dtype}; store real numbers.")
    return value.astype(np.float64)


def _poses(value: np.ndarray) -> np.ndarray:
    poses = _numeric(value, POSES)
    if poses.ndim == 4 and poses.shape[0] == 1:
        poses = poses[0]
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)) or not len(poses):
        raise CameraError(
            f"{POSES} has shape {list(value.shape)}; store camera-to-world matrices as [T,4,4], "
            "[1,T,4,4] or [T,3,4]."
        )
    if poses.shape[1] == 3:
        last = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0]), (len(poses), 1, 4))
        poses = np.concatenate([poses, last], axis=1)
    return poses


def _trajectory(
    arrays: dict[str, np.ndarray], poses: np.ndarray, translation_scale: float
) -> Trajectory:
    intrinsics = arrays.get("intrinsics")
    if intrinsics is not None:
        intrinsics = _numeric(intrinsics, "intrinsics")
        if intrinsics.ndim == 4 and intrinsics.shape[0] == 1:
            intrinsics = intrinsics[0]
        if intrinsics.shape in ((3, 3), (1, 3, 3)):
            intrinsics = np.broadcast_to(intrinsics.reshape(3, 3), (len(poses), 3, 3))
    size, scale = arrays.get("size"), arrays.get("focal_scale")
    stated = arrays.get("unit")
    trajectory = Trajectory(
        world_from_camera=poses,
        times=_times(arrays, len(poses)),
        unit=LengthUnit.MEDIAN_DEPTH if stated is None else _unit(stated),
        intrinsics=intrinsics,
        size=None if size is None else tuple(_numeric(size, "size").reshape(-1).tolist()),
        focal_scale=None if scale is None else _numeric(scale, "focal_scale"),
    )
    if stated is None:
        return trajectory.scaled(translation_scale, LengthUnit.MEDIAN_DEPTH)
    return trajectory


def _times(arrays: dict[str, np.ndarray], count: int) -> np.ndarray:
    if "times" in arrays:
        return _numeric(arrays["times"], "times")
    fps = _numeric(arrays["fps"], "fps") if "fps" in arrays else np.array(1 / DEFAULT_STEP)
    if fps.size != 1 or not np.isfinite(fps).all() or fps.min() <= 0:
        raise CameraError(f"fps is {fps.tolist()}; store one finite number above 0.")
    return np.arange(count) / float(fps.reshape(()))


def _convention(arrays: dict[str, np.ndarray], asked: Convention | None) -> Convention:
    if "convention" not in arrays:
        return asked or Convention()
    stated = parse_convention(_word(arrays["convention"]))
    if asked not in (None, stated):
        raise CameraError(
            f"The convention {asked} was asked for but the file states {stated}; leave out the "
            "option or correct the file."
        )
    return stated


def _word(value: np.ndarray) -> str:
    return str(value.reshape(-1)[0]) if value.size == 1 else str(value.tolist())


def _unit(value: np.ndarray) -> LengthUnit:
    text = _word(value)
    if text not in tuple(LengthUnit):
        raise CameraError(f"The unit {text!r} is unknown; store one of {', '.join(LengthUnit)}.")
    return LengthUnit(text)
