"""The camera of a recorded video as a path for another photo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.engine.files import is_network, is_streaming
from flythrough.engine.geometry_source import build_estimator, check_geometry, own_network
from flythrough.engine.options import check_device
from flythrough.errors import CameraError
from flythrough.models.catalog import BUNDLED, ModelFolder, find_model
from flythrough.models.ttt3r_folder import is_streaming_folder

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
_MOST_FRAMES = 600


def is_reference(source: str) -> bool:
    """Whether a camera argument is the name of a video."""
    return Path(source).suffix.lower() in VIDEO_SUFFIXES


def camera_of_video(
    video: Path, geometry: str, model: str, device: str, notify: Callable[[str], None]
) -> Trajectory:
    """The estimated poses of the first 600 frames, lengths in median depths of the first frame.

    Only poses are kept: the photo that will follow them has a focal length of its own.

    Raises:
        CameraError: the geometry knows no poses, or takes fewer frames at a time.
        MediaError: the video cannot be read.
    """
    import torch

    from flythrough.engine.build import pick_device
    from flythrough.media.video import read_video
    from flythrough.scene.settings import WarpSettings

    if not (is_network(geometry) or is_streaming(geometry)):
        raise CameraError(
            f"--geometry {geometry} says nothing about how a camera moves; give the folder of a "
            "TTT3R network, or default for the model's own."
        )
    check_device(device)
    folder = find_model(model)
    check_geometry(geometry, folder, None)
    clip = read_video(video)
    frames = clip.frames[:_MOST_FRAMES]
    if len(clip.frames) > _MOST_FRAMES:
        notify(f"only the first {_MOST_FRAMES} of {len(clip.frames)} frames of {video} are used.")
    _check_count(video, geometry, folder, len(frames))
    if is_network(geometry) and model == BUNDLED:
        notify(
            f"the geometry network of {BUNDLED} was trained for depth and sees next to no motion, "
            "so that the path will hardly move; give the folder of a TTT3R network with --geometry."
        )
    settings = WarpSettings(**folder.defaults.warp)
    place = pick_device(device)
    estimator = build_estimator(geometry, folder, place, settings.confidence, notify)
    images = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        found = estimator.estimate(images)
    poses = found.world_from_camera.double().cpu().numpy()
    poses[:, :3, 3] /= float(found.median_depth())
    return Trajectory(
        world_from_camera=_rigid(poses),
        times=np.arange(len(poses)) / float(clip.fps),
        unit=LengthUnit.MEDIAN_DEPTH,
    )


def _check_count(video: Path, geometry: str, model: ModelFolder, count: int) -> None:
    """Networks that stream take any number of frames, others have a limit."""
    from flythrough.models.pi3x_estimator import MAX_VIEWS

    if is_streaming(geometry) or is_streaming_folder(own_network(model)) or count <= MAX_VIEWS:
        return
    raise CameraError(
        f"The geometry {geometry} takes {MAX_VIEWS} frames at a time but {video} has {count}; "
        "cut the video or give the folder of a TTT3R network, which takes any number."
    )


def _rigid(poses: np.ndarray) -> np.ndarray:
    """The nearest rotations: estimates are single precision."""
    left, _, right = np.linalg.svd(poses[:, :3, :3])
    found = poses.copy()
    found[:, :3, :3] = left @ right
    return found
