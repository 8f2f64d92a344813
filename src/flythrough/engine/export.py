"""A stored rollout for other programs: cameras, points, COLMAP, Gaussians, Blender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from flythrough.disk import replacing_folder, writing
from flythrough.engine.files import check_sources
from flythrough.engine.options import check_device
from flythrough.engine.plan import Plan
from flythrough.engine.stored_plan import check_fits, read_plan
from flythrough.engine.stored_settings import check_settings, warp_settings
from flythrough.errors import RolloutError
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout import store
from flythrough.rollout.rollout import Rollout

if TYPE_CHECKING:
    from torch import Tensor

    from flythrough.geometry.estimator import Estimator
    from flythrough.geometry.types import Geometry
    from flythrough.scene.surface import Keyframe

Format = Literal["cameras", "points", "glb", "colmap", "colmap-text", "blender", "gaussians"]
FORMATS: tuple[str, ...] = get_args(Format)
DEFAULT_FORMATS: tuple[str, ...] = ("cameras", "points", "colmap", "blender")
"""Everything but doubles and what takes a fit."""

_LOADING, _ESTIMATING = "loading the network of depth", "estimating depth"
_NEEDS_SCENE = {"points", "glb", "colmap", "colmap-text", "blender", "gaussians"}
Notify = Callable[[str], None]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True)
class ExportRequest:
    """What ``flythrough export`` accepts; no formats: the default ones."""

    folder: Path
    output: Path
    formats: tuple[str, ...] = ()
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class CheckedExport:
    """A stored rollout with cameras, and how many of its frames belong to the video."""

    request: ExportRequest
    formats: tuple[str, ...]
    rollout: Rollout
    plan: Plan
    model: ModelFolder
    frames: int

    @property
    def cameras(self) -> tuple[np.ndarray, np.ndarray]:
        """Poses [T,4,4] and intrinsics [T,3,3] of the video's frames."""
        found = self.rollout.cameras()
        assert found is not None
        return found[0][: self.frames], found[1][: self.frames]


def check_export(request: ExportRequest) -> CheckedExport:
    """Read the rollout; nothing heavy is loaded and nothing is written.

    Raises:
        RolloutError: it has no chunks or no cameras, a format is unknown, or the target cannot be
            used.
        WeightsError: the model is gone or changed.
    """
    check_device(request.device)
    formats = tuple(dict.fromkeys(request.formats or DEFAULT_FORMATS))
    for name in formats:
        if name not in FORMATS:
            raise RolloutError(
                f"The format {name!r} is unknown; --formats takes {', '.join(FORMATS)}."
            )
    if {"colmap", "colmap-text"} <= set(formats):
        raise RolloutError("--formats names colmap and colmap-text; keep one of them.")
    plan = read_plan(request.folder)
    rollout = store.load(request.folder)
    check_fits(plan, rollout, request.folder)
    check_settings(rollout.spec)
    if not rollout.chunks or rollout.cameras() is None or rollout.start is None:
        what = "no chunks" if not rollout.chunks else "no cameras"
        raise RolloutError(
            f"The rollout {request.folder} has {what}, so there is nothing to export; make it with "
            "--camera."
        )
    _check_target(request)
    model = find_model(rollout.spec.model)
    if _NEEDS_SCENE & set(formats):
        check_sources(rollout.spec, model)
    frames = min(plan.frames, rollout.frame_count)
    return CheckedExport(request, formats, rollout, plan, model, frames)


def _check_target(request: ExportRequest) -> None:
    target = request.output
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise RolloutError(f"{target} is a file or a folder with files; name a new folder with -o.")
    if not target.absolute().parent.is_dir():
        raise RolloutError(
            f"The folder {target.absolute().parent} does not exist; create it first."
        )


def export(checked: CheckedExport, notify: Notify, progress: Progress) -> dict[str, list[str]]:
    """Write the formats; returns the files of each, relative to the target folder.

    The folder appears with all its files or not at all.

    Raises:
        FaultError: the disk failed or is full.
    """
    whole = checked.plan.frames
    if checked.frames < whole:
        notify(
            f"the run has {checked.frames} of its {whole} frames: what is there is exported; "
            f"finish it with `flythrough continue {checked.request.folder}`."
        )
    output = checked.request.output.absolute()
    needed = _NEEDS_SCENE & set(checked.formats)
    scene = keyframes_of(checked, notify, progress) if needed else ()
    with writing(output), replacing_folder(output) as target:
        return _write(checked, scene, target, notify, progress)


def _write(
    checked: CheckedExport,
    scene: tuple[Keyframe, ...],
    target: Path,
    notify: Notify,
    progress: Progress,
) -> dict[str, list[str]]:
    from flythrough.engine.geometry_files import glb_bytes, ply_bytes

    formats = set(checked.formats)
    points, colours = points_of(scene)
    written: dict[str, list[str]] = {}
    if formats & {"cameras", "blender"}:
        _write_cameras(checked, target)
        written["cameras"] = ["cameras.npz"]
    if formats & {"points", "blender"}:
        (target / "points.ply").write_bytes(ply_bytes(points, colours))
        written["points"] = ["points.ply"]
    if "glb" in formats:
        (target / "points.glb").write_bytes(glb_bytes(points, colours))
        written["glb"] = ["points.glb"]
    if formats & {"colmap", "colmap-text"}:
        written["colmap"] = _write_colmap(checked, target, points, colours, progress)
    if "blender" in formats:
        written["blender"] = _write_blender(checked, target, progress)
    if "gaussians" in formats:
        written["gaussians"] = _write_gaussians(checked, target, scene, notify, progress)
    return written


def keyframes_of(
    checked: CheckedExport, notify: Notify, progress: Progress
) -> tuple[Keyframe, ...]:
    """The scene memory of the rollout: the photo and the newest chunks' last frames, with depth."""
    progress(_LOADING, 0, 1)
    import torch

    from flythrough.engine.build import build_memory, pick_device

    device = pick_device(checked.request.device)
    with torch.inference_mode():
        memory = build_memory(checked.rollout.spec, checked.model, device, notify)
        progress(_LOADING, 1, 1)
        pictures = 1 if memory.photo_only else 1 + len(checked.rollout.chunks)
        memory.estimator = counted = _Counted(memory.estimator, pictures, progress)
        found = memory.keyframes(checked.rollout)
        progress(_ESTIMATING, counted.done, counted.done)
        return found


class _Counted:
    """An estimator that says which of about ``expected`` pictures it is at."""

    def __init__(self, estimator: Estimator, expected: int, progress: Progress) -> None:
        self.name, self.capabilities = estimator.name, estimator.capabilities
        self._estimator, self._expected, self._progress = estimator, expected, progress
        self.done = 0
        progress(_ESTIMATING, 0, expected)

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """As the estimator's."""
        found = self._estimator.estimate(images, intrinsics=intrinsics)
        self.done += len(images)
        self._progress(_ESTIMATING, self.done, max(self.done, self._expected))
        return found


def points_of(scene: tuple[Keyframe, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Sure pixels of all keyframes as points float32 [M,3] with colours uint8 [M,3]."""
    points, colours = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.uint8)]
    for keyframe in scene:
        valid = keyframe.geometry.valid[0].cpu().numpy()
        places = keyframe.geometry.points_world()[0].cpu().numpy()[valid]
        shades = (keyframe.image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()[valid]
        points.append(places.astype(np.float32))
        colours.append(shades)
    return np.concatenate(points), np.concatenate(colours)


def _write_cameras(checked: CheckedExport, target: Path) -> None:
    from flythrough.cameras.formats.cameras_npz import write_cameras

    poses, matrices = checked.cameras
    write_cameras(
        target / "cameras.npz",
        poses,
        matrices,
        checked.rollout.size,
        checked.rollout.spec.fps,
        metric=checked.plan.metric,
        median_depth=checked.plan.median_depth or 1.0,
    )


def _write_colmap(
    checked: CheckedExport,
    target: Path,
    points: np.ndarray,
    colours: np.ndarray,
    progress: Progress,
) -> list[str]:
    """``sparse/0`` with the model and ``images`` with the pictures, as trainers expect them."""
    from flythrough.cameras.formats.colmap import ColmapModel, write_model
    from flythrough.media.image import write_picture

    images, sparse = target / "images", target / "sparse" / "0"
    images.mkdir()
    sparse.mkdir(parents=True)
    names = [f"frame_{number:05d}.png" for number in range(1, checked.frames + 1)]
    for number, (name, frame) in enumerate(zip(names, checked.rollout.frames(), strict=False)):
        progress("writing pictures", number, len(names))
        write_picture(images / name, frame)
    progress("writing pictures", len(names), len(names))
    poses, matrices = checked.cameras
    model = ColmapModel(poses, matrices, checked.rollout.size, names, points, colours)
    write_model(sparse, model, "text" if "colmap-text" in checked.formats else "binary")
    return ["images", "sparse/0"]


def _write_blender(checked: CheckedExport, target: Path, progress: Progress) -> list[str]:
    from flythrough.engine.run import write_result

    script = files("flythrough") / "assets" / "blender_scene.py"
    (target / "blender_scene.py").write_bytes(script.read_bytes())
    write_result(
        checked.rollout, checked.plan, target / "video.mp4", partial(progress, "writing the video")
    )
    return ["blender_scene.py", "video.mp4"]


def _write_gaussians(
    checked: CheckedExport,
    target: Path,
    scene: tuple[Keyframe, ...],
    notify: Notify,
    progress: Progress,
) -> list[str]:
    from flythrough.scene.splat_files import write_splats
    from flythrough.scene.splat_memory import GaussianMemory

    settings = warp_settings(checked.rollout.spec)
    notify(
        f"fitting Gaussians to {len(scene)} picture(s) in {settings.gaussian_steps} steps, which "
        "takes minutes without a GPU."
    )
    splats = GaussianMemory(scene, settings).optimised(partial(progress, "fitting Gaussians"))
    write_splats(target / "gaussians.ply", splats)
    return ["gaussians.ply"]
