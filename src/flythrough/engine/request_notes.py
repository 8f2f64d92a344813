"""What the user is told of a request that is taken: what becomes of the inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flythrough.cameras.source import camera_notes
from flythrough.cameras.trajectory import Trajectory
from flythrough.engine.files import is_network
from flythrough.engine.start_video import StartVideo
from flythrough.engine.warp_video import WarpVideo
from flythrough.media.checks import IN_MEMORY
from flythrough.media.image import FittedPhoto, Photo
from flythrough.media.video import Clip
from flythrough.models.catalog import ModelFolder

if TYPE_CHECKING:
    from flythrough.engine.request import GenerateRequest

_MUCH_LOST = 0.55
"""A share of the photo; a square one keeps 0.56 to 0.6 in a film's shape."""


def request_notes(
    request: GenerateRequest,
    photo: FittedPhoto | None,
    trajectory: Trajectory | None,
    warp: WarpVideo | None,
) -> tuple[str, ...]:
    """Files that are replaced, inputs that are cut, scaled or held, and what is assumed of them."""
    notes = []
    if request.output is not None and request.output.exists():
        notes.append(f"{request.output} exists and will be replaced.")
    if request.camera is not None and not isinstance(request.camera, Trajectory):
        notes += camera_notes(request.camera, request.frames, request.camera_scale)
    if photo is not None and photo.scale > 1:
        notes.append(
            f"the photo {_called(request.image)} is smaller than the video and is enlarged "
            f"{photo.scale:.2g} times."
        )
    if photo is not None and (kept := _kept(photo)) < _MUCH_LOST:
        height, width = photo.pixels.shape[:2]
        notes.append(
            f"of the photo {_called(request.image)}, {photo.source_size[1]} wide and "
            f"{photo.source_size[0]} high, only the middle {kept:.0%} are in a video {width} wide "
            f"and {height} high (--size is HEIGHTxWIDTH)."
        )
    if isinstance(request.camera, Trajectory) and len(request.camera) != request.frames:
        what = "cut" if len(request.camera) > request.frames else "held at its last camera"
        notes.append(
            f"the trajectory has {len(request.camera)} cameras for {request.frames} frames: it is "
            f"{what}."
        )
    if warp is not None and warp.given > request.frames:
        notes.append(
            f"the warp {request.warp} has {warp.given} frames: only the first {request.frames} are "
            "used."
        )
    if warp is not None and photo is not None and warp.shape != photo.pixels.shape[:2]:
        notes.append(
            f"the warp {request.warp} is {warp.shape[0]}x{warp.shape[1]} and is cut and scaled to "
            f"{photo.pixels.shape[0]}x{photo.pixels.shape[1]} as the photo is."
        )
    if trajectory is not None and not is_network(request.geometry):
        unknown = photo is not None and not photo.focal_known
        if unknown and trajectory.intrinsics is None:
            notes.append(
                f"the photo {_called(request.image)} states no focal length: it is taken from the "
                f"geometry {request.geometry} or assumed as 60 degrees across."
            )
    return tuple(notes)


def size_notes(size: tuple[int, int], model: ModelFolder) -> tuple[str, ...]:
    """That a model knows one size, where the video has another."""
    own = model.defaults.height, model.defaults.width
    if size == own:
        return ()
    return (
        f"{model.name} was trained on frames of {own[0]}x{own[1]}: at {size[0]}x{size[1]} its "
        "videos may fall apart.",
    )


def video_notes(
    request: GenerateRequest, video: StartVideo | None, model: ModelFolder
) -> tuple[str, ...]:
    """What continuing ``video`` changes of it; nothing without one."""
    if video is None:
        return ()
    notes = []
    if abs(video.fps - model.defaults.fps) > 0.5:
        notes.append(
            f"the video {_called(request.video)} runs at {video.fps:g} frames a second and is "
            f"continued at {model.defaults.fps:g}: speeds change."
        )
    if video.given > len(video.frames):
        notes.append(
            f"of the {video.given} frames of {_called(request.video)} the last "
            f"{len(video.frames)} and the first are remembered."
        )
    return tuple(notes)


def _kept(photo: FittedPhoto) -> float:
    """Share of the photo's pixels that a video of another shape shows."""
    height, width = photo.source_size
    across = photo.pixels.shape[1] / photo.pixels.shape[0] * height / width
    return min(across, 1 / across)


def _called(given: Path | Photo | Clip | None) -> str:
    return str(given) if isinstance(given, Path) else IN_MEMORY
