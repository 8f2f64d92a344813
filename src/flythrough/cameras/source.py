"""One argument, two meanings: a camera file or a path in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.cameras.formats import (
    READABLE,
    fixed_cameras_in,
    fixed_notes,
    has_fixed_meaning,
    own_cameras,
    read_trajectory,
    scale_note,
    states_convention,
    states_unit,
)
from flythrough.cameras.formats.camera_poses_npz import TRANSLATION_SCALE
from flythrough.cameras.formats.reading import existing_file
from flythrough.cameras.path_language import parse_path, starts_like_a_path
from flythrough.cameras.shots import is_shots, parse_shots
from flythrough.cameras.trajectory import Trajectory
from flythrough.errors import CameraError


@dataclass(frozen=True)
class BelievedFile:
    """A camera file whose matrices are taken to mean what it says (``stated``), or what such files
    usually mean; nobody said so on the command line. ``fixed``: its format is another program's and
    has one meaning."""

    path: Path
    stated: bool
    fixed: bool = False


def believed_file(text_or_path: object, convention: str | None) -> BelievedFile | None:
    """The camera file that :func:`trajectory_from` read without being told its convention."""
    if convention is not None or not isinstance(text_or_path, str | Path):
        return None
    file = camera_file(text_or_path)
    if file is None:
        return None
    return BelievedFile(file, states_convention(file), has_fixed_meaning(file))


def trajectory_from(
    text_or_path: str | Path,
    frames: int,
    fps: float = 16.0,
    convention: str | None = None,
    scale: float | None = None,
) -> Trajectory:
    """``frames`` cameras from a camera file or from the path language.

    A file gives one camera for each frame, whatever its own frame rate (its times stay): it is cut
    when it is too long, and its last camera is held when it is too short. Anything that
    :func:`camera_file` does not take for a file is the path language at ``fps``. ``convention``
    says what the file's matrices mean (``cameras.formats.conventions``), ``scale`` how many median
    depths a length of 1 in it is.

    Raises:
        CameraError: the file or the words are unusable, ``frames`` is below 1, or a convention or
            scale that has no effect.
    """
    if frames < 1:
        raise CameraError(f"A camera path of {frames} frames is empty; ask for at least 1 frame.")
    file = camera_file(text_or_path)
    if file is None:
        check_no_options("a path in words", convention, scale)
        text = str(text_or_path)
        return parse_shots(text, frames, fps) if is_shots(text) else parse_path(text, frames, fps)
    return read_trajectory(file, frames, convention=convention, scale=scale)


def camera_notes(text_or_path: str | Path, frames: int, scale: float | None = None) -> list[str]:
    """What a user should know of a camera file that :func:`trajectory_from` reads ``frames`` of."""
    file = camera_file(text_or_path)
    if file is None:
        return []
    found = fixed_cameras_in(file)  # once: a model may have millions of points
    notes: list[str] = []
    given = len(own_cameras(file) if found is None else found.trajectory)  # under any convention
    if given > frames:
        notes.append(
            f"the camera file {file} has {given} cameras: only the first {frames} are used; give "
            "--frames for more."
        )
    if found is not None:
        notes += fixed_notes(file, found)
        said = scale_note(file, found) if scale is None else None
        notes += [] if said is None else [said]
    elif scale is None and not states_unit(file):
        notes.append(
            f"the camera file {file} states no unit: a length of 1 is taken for "
            f"{TRANSLATION_SCALE:g} median depths, as in published files; say --camera-scale X to "
            "have it count X, or store the key unit (median-depth, metre or scene)."
        )
    return notes


def check_no_options(what: str, convention: str | None, scale: float | None) -> None:
    """Refuse a convention and a scale where cameras leave nothing open."""
    if convention is not None:
        raise CameraError(f"The camera convention {convention} has no effect on {what}; drop it.")
    if scale is not None:
        raise CameraError(f"The camera scale {scale:g} has no effect on {what}; drop it.")


def camera_file(text_or_path: str | Path) -> Path | None:
    """The file that the argument means, or None when it is a path in words.

    Files are: a ``Path``, a known suffix, and (unless the first word is a verb or preset) a name
    that exists or has a slash, which may be the folder of a COLMAP model.

    Raises:
        CameraError: a name without a known suffix that is missing.
    """
    text = str(text_or_path)
    if is_shots(text):
        return None
    path = Path(text)
    if isinstance(text_or_path, Path) or path.suffix.lower() in READABLE:
        return path
    if not starts_like_a_path(text) and text.strip() and (_exists(path) or "/" in text):
        return path if path.is_dir() else existing_file(path)
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
