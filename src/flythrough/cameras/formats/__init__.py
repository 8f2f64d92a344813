"""Camera files, one module a format, chosen by suffix."""

from __future__ import annotations

from pathlib import Path

from flythrough.cameras.formats import camera_poses_npz, native_json
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError

SUFFIXES = (".npz", ".json")


def read_trajectory(
    path: str | Path, frames: int | None = None, *, convention: str | None = None
) -> Trajectory:
    """The trajectory in a camera file (``.npz`` camera poses or ``.json``).

    Args:
        path: the file.
        frames: wanted length; a shorter file repeats its last camera, a longer one is cut. None
            keeps the file's length.
        convention: what the matrices of an ``.npz`` mean (``conventions.parse_convention``), like
            "opengl,camera-from-world"; None takes what the file states, else
            "opencv,world-from-camera".

    Raises:
        CameraError: unknown suffix, missing file, folder, unusable content, or a convention for a
            format that has only one.
    """
    path = Path(path)
    if check_suffix(path) == ".npz":
        trajectory = camera_poses_npz.read(path, convention=convention)
    elif convention is not None:
        raise CameraError(
            f"The convention {convention!r} has no effect on {path}, because .json trajectories "
            "are always opencv,world-from-camera; leave it out."
        )
    else:
        trajectory = native_json.read(path)
    return trajectory if frames is None else trajectory.padded(frames)[:frames]


def states_convention(path: str | Path) -> bool:
    """Whether a file that :func:`read_trajectory` takes says what its matrices mean, as ``.json``
    files always do."""
    path = Path(path)
    return check_suffix(path) != ".npz" or camera_poses_npz.states(path, "convention")


def states_unit(path: str | Path) -> bool:
    """Whether such a file says what its lengths are, as ``.json`` files always do."""
    path = Path(path)
    return check_suffix(path) != ".npz" or camera_poses_npz.states(path, "unit")


def write_trajectory(path: str | Path, trajectory: Trajectory) -> None:
    """Write a camera file in the format of its suffix; reading it gives the same values back.

    The file appears whole or not at all; what was there before stays when writing fails.

    Raises:
        CameraError: unknown suffix, or the file cannot be written.
    """
    path = Path(path)
    write = native_json.write if check_suffix(path) == ".json" else camera_poses_npz.write
    write(path, trajectory)


def check_suffix(path: Path) -> str:
    """The file's suffix in lower case, or a CameraError when it names no camera format."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CameraError(
            f"The suffix {path.suffix!r} of {path} names no camera format; "
            f"use one of {', '.join(SUFFIXES)}."
        )
    return suffix
