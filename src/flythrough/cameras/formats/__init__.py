"""Camera files, one module a format, told apart by name and content."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flythrough.cameras.formats import (
    camera_poses_npz,
    colmap_cameras,
    native_json,
    nerf_transforms,
    nerfstudio_path,
    re10k_text,
)
from flythrough.cameras.formats.fixed import FixedCameras
from flythrough.cameras.formats.lengths import check_scale, in_median_depths, usual_scale
from flythrough.cameras.formats.reading import existing_file, json_value
from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.errors import CameraError

SUFFIXES = (".npz", ".json")
"""Of the files that are written."""

READABLE = (*SUFFIXES, ".txt", ".bin")
"""Of the files that are read; a folder with a COLMAP model is read too."""


def read_trajectory(
    path: str | Path,
    frames: int | None = None,
    *,
    convention: str | None = None,
    scale: float | None = None,
) -> Trajectory:
    """The trajectory in a camera file of any format in ``docs/cameras.md``.

    Args:
        path: the file, or the folder of a COLMAP model.
        frames: wanted length; a shorter file repeats its last camera, a longer one is cut. None
            keeps the file's length.
        convention: what the matrices of an ``.npz`` mean (``conventions.parse_convention``), like
            "opengl,camera-from-world"; None takes what the file states, else
            "opencv,world-from-camera".
        scale: median depths in a length of 1, where the file states no unit; None takes
            ``camera_poses_npz.TRANSLATION_SCALE`` or ``lengths.usual_scale``.

    Raises:
        CameraError: unknown suffix, missing file, folder, unusable content, a convention for a
            format that has only one, or a scale for a file that states its unit.
    """
    path = Path(path)
    found = fixed_cameras_in(path)
    _check_options(path, found, convention, scale)
    if found is not None:
        trajectory = in_median_depths(found, scale)
    else:
        trajectory = own_cameras(path, convention=convention, scale=scale)
    return trajectory if frames is None else trajectory.padded(frames)[:frames]


def own_cameras(
    path: Path, *, convention: str | None = None, scale: float | None = None
) -> Trajectory:
    """The trajectory in a file of ``camera_poses`` or Flythrough's own, for which
    :func:`fixed_cameras_in` has None; options and errors as :func:`read_trajectory`."""
    if check_suffix(path) == ".npz":
        factor = camera_poses_npz.TRANSLATION_SCALE if scale is None else check_scale(scale)
        trajectory = camera_poses_npz.read(path, translation_scale=factor, convention=convention)
        if scale is not None and camera_poses_npz.states(path, "unit"):
            raise _unit_is_stated(path, scale, trajectory.unit)
        return trajectory
    trajectory = native_json.read(path)
    if scale is not None:
        raise _unit_is_stated(path, scale, trajectory.unit)
    return trajectory


def read_recorded(path: Path, *, own_lengths: bool) -> Trajectory:
    """The cameras that a clip was filmed with, for whoever knows its depth or estimates it.

    Where the format states no unit they count in median depths of the file's points; without
    points, or with ``own_lengths``, in unit SCENE as the file has them.

    Raises:
        CameraError: as :func:`read_trajectory`.
    """
    found = fixed_cameras_in(path)
    if found is None:
        return read_trajectory(path)
    if own_lengths or found.median_depth is None:
        return found.trajectory
    return in_median_depths(found, None)


def fixed_cameras_in(path: Path) -> FixedCameras | None:
    """The cameras of a file whose format fixes what its matrices mean and has no unit; None for
    ``camera_poses`` and Flythrough's own.

    Raises:
        CameraError: unknown suffix, missing file, or unusable content.
    """
    read = _fixed_reader(path)
    return None if read is None else read()


def _fixed_reader(path: Path) -> Callable[[], FixedCameras] | None:
    if colmap_cameras.names_model(path):
        return partial(colmap_cameras.read, path)
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise CameraError(
            f"The suffix {path.suffix!r} of {path} names no camera format; "
            f"use one of {', '.join(READABLE)}, or the folder of a COLMAP model."
        )
    if suffix == ".npz":
        return None
    existing_file(path)
    if suffix == ".txt":
        return partial(re10k_text.read, path)
    if suffix == ".bin":
        raise CameraError(
            f"{path} is not called cameras.bin or images.bin, as the files of COLMAP models are; "
            "name one of those or their folder."
        )
    data = json_value(path)
    if isinstance(data, dict) and native_json.FORMAT not in str(data.get("format")):
        if "camera_path" in data:
            return partial(nerfstudio_path.read, path, data)
        if "frames" in data:
            return partial(nerf_transforms.read, path, data)
    return None


def fixed_notes(path: Path, found: FixedCameras | None) -> list[str]:
    """What was left out of or assumed of ``found``, the :func:`fixed_cameras_in` a file; nothing
    for files of other formats."""
    if found is None:
        return []
    return [f"the camera file {path} ({found.kind}): {text}." for text in found.notes]


def scale_note(path: Path, found: FixedCameras) -> str | None:
    """How long a length of 1 in a file with these cameras is taken for; None for a single one."""
    if len(found.trajectory) == 1:
        return None
    factor, why = usual_scale(found)
    return (
        f"the camera file {path} ({found.kind}) states no unit: a length of 1 is taken for "
        f"{factor:.4g} median depths, because {why}; say --camera-scale X to have it count X."
    )


def files_of(path: Path) -> list[Path]:
    """The files that reading ``path`` opens: itself, or those of a COLMAP model."""
    return colmap_cameras.files(path) if colmap_cameras.names_model(path) else [path]


def has_fixed_meaning(path: Path) -> bool:
    """Whether the format of a file that :func:`read_trajectory` takes is another program's, which
    fixes axes and direction."""
    return _fixed_reader(path) is not None


def states_convention(path: str | Path) -> bool:
    """Whether a file that :func:`read_trajectory` takes says what its matrices mean, as all but
    ``.npz`` always do."""
    path = Path(path)
    return path.suffix.lower() != ".npz" or camera_poses_npz.states(path, "convention")


def states_unit(path: str | Path) -> bool:
    """Whether such a file says what its lengths are, as Flythrough's ``.json`` always do."""
    path = Path(path)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return camera_poses_npz.states(path, "unit")
    return _fixed_reader(path) is None


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
    """The suffix in lower case of a file to write, or a CameraError when it is none of ours."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise CameraError(
            f"The suffix {path.suffix!r} of {path} names no camera format; "
            f"use one of {', '.join(SUFFIXES)}."
        )
    return suffix


def _check_options(
    path: Path, found: FixedCameras | None, convention: str | None, scale: float | None
) -> None:
    if scale is not None:
        check_scale(scale)
    if convention is None or (found is None and path.suffix.lower() == ".npz"):
        return
    what = f"a {found.kind} fixes" if found else ".json trajectories are always opencv, which fixes"
    raise CameraError(
        f"The convention {convention!r} has no effect on {path}, because {what} what its matrices "
        "mean; leave it out."
    )


def _unit_is_stated(path: Path, scale: float, unit: LengthUnit) -> CameraError:
    return CameraError(
        f"The camera scale {scale:g} has no effect on {path}, which states its unit ({unit}); "
        "leave it out."
    )
