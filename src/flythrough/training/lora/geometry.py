"""Depth and cameras of a whole clip: given, or estimated once and kept in the run folder.

The warps of all items are rendered from it (Warp-as-History's online warp cache).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.cameras.trajectory import LengthUnit, Trajectory
from flythrough.disk import replacing
from flythrough.errors import InputError
from flythrough.geometry.align import depth_scale
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.joint import without_edges
from flythrough.geometry.quantile import quantile
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.fitting import default_intrinsics
from flythrough.training.lora.clips import TrainingClip
from flythrough.training.lora.poses import placed_by_features

Notify = Callable[[str], None]

_OVERLAP = 8
_LEAST_MOTION = 1e-6


@dataclass(frozen=True, eq=False)
class PlayedClip:
    """A clip in one direction: ``images`` uint8 [T,H,W,3] and the geometry of its T frames."""

    images: np.ndarray
    geometry: Geometry

    def pictures(self, frames: list[int]) -> Tensor:
        """Those frames as [n,3,H,W] in [0,1] on the geometry's device."""
        chosen = torch.from_numpy(np.ascontiguousarray(self.images[frames]))
        return chosen.permute(0, 3, 1, 2).to(self.geometry.depth.device, torch.float32) / 255

    def reversed(self) -> PlayedClip:
        """The same played backwards. The network treats views as a set, so that its estimate of
        the reversed clip is this one in another world frame, which warps do not depend on."""
        g = self.geometry
        flipped: dict[str, Any] = {
            name: v.flip(0) for name, v in vars(g).items() if isinstance(v, Tensor)
        }
        return PlayedClip(self.images[::-1], replace(g, **flipped))


def known_geometry(
    clip: TrainingClip,
    file: Path,
    estimator: Callable[[], Estimator],
    notify: Notify,
    *,
    reference: bool = False,
    by_features: bool = False,
) -> Geometry:
    """The geometry of ``clip`` from ``file``, made first if it is not there or damaged.

    Args:
        estimator: called only where depth or cameras are not given.
        reference: every estimated frame keeps a focal length of its own and loses the pixels at
            silhouettes, as published.
        by_features: cameras that are not given are measured in the frames.

    Raises:
        InputError: cameras and depth that do not fit together, or cameras that stand still where
            their scale must be found.
    """
    found = _read(file)
    if found is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            _write(file, _made(clip, estimator, notify, reference, by_features))
        found = _read(file)
    assert found is not None
    return found


def estimate_clip(estimator: Estimator, images: Tensor, *, steady: bool = True) -> Geometry:
    """Depth and cameras of frames [T,3,H,W] in one world frame and unit.

    As many frames at a time as the estimator takes; windows overlap by 8 frames, by which each is
    scaled and laid onto the one before. If ``steady``, one focal length serves the whole clip (the
    median): a lens does not change from frame to frame.
    """
    most = estimator.capabilities.max_views or len(images)
    starts = [0]
    while starts[-1] + most < len(images):
        starts.append(min(starts[-1] + most - _OVERLAP, len(images) - most))
    whole: Geometry | None = None
    for start in starts:
        found = estimator.estimate(images[start : start + most])
        whole = found if whole is None else _continued(whole, found, len(whole) - start)
    assert whole is not None
    if not steady:
        return whole
    matrix = whole.intrinsics[:1].clone()
    for axis in (0, 1):
        matrix[0, axis, axis] = quantile(whole.intrinsics[:, axis, axis], 0.5)
    return replace(whole, intrinsics=matrix.expand_as(whole.intrinsics).contiguous())


def _continued(known: Geometry, found: Geometry, shared: int) -> Geometry:
    """``known`` and the frames of ``found`` after its first ``shared``, which both hold."""
    count = len(known)
    fitted = depth_scale(
        known.depth[-shared:].flatten(0, 1),
        known.valid[-shared:].flatten(0, 1),
        found.depth[:shared].flatten(0, 1),
        found.valid[:shared].flatten(0, 1),
    )
    found = found.scaled(fitted.scale)
    middle = shared // 2
    step = known.world_from_camera[count - shared + middle] @ torch.linalg.inv(
        found.world_from_camera[middle]
    )
    placed = found.placed(step @ found.world_from_camera)
    joined: dict[str, Any] = {
        name: torch.cat([value, getattr(placed, name)[shared:]])
        for name, value in vars(known).items()
        if isinstance(value, Tensor)
    }
    return replace(known, **joined)


def _made(
    clip: TrainingClip,
    estimator: Callable[[], Estimator],
    notify: Notify,
    reference: bool,
    by_features: bool,
) -> Geometry:
    if clip.depth is not None:
        return _given(clip, clip.depth, notify)
    network = estimator()
    pixels = torch.from_numpy(np.array(clip.frames)).permute(0, 3, 1, 2).float() / 255
    found = estimate_clip(network, pixels, steady=not reference)
    if clip.camera is None and by_features:
        found = placed_by_features(clip.frames, found)
    if clip.camera is None:
        return without_edges(found) if reference else found
    return _with_cameras(found, clip, network.name, notify)


def _given(clip: TrainingClip, depth: np.ndarray, notify: Notify) -> Geometry:
    assert clip.camera is not None
    size = (depth.shape[1], depth.shape[2])
    known = torch.from_numpy(np.array(depth))
    valid = known > 0
    if not bool(valid.any()):
        raise InputError(f"The depth of the clip {clip.id} is 0 everywhere; give another file.")
    if clip.camera.intrinsics is None:
        notify("the camera file states no focal length: 60 degrees across are assumed.")
    median = float(quantile(known[0][valid[0]], 0.5)) if bool(valid[0].any()) else 1.0
    path = clip.camera.resolve(default_intrinsics(*size), size, median, metric=True)
    return Geometry(
        depth=known,
        confidence=valid.float(),
        valid=valid,
        intrinsics=_tensor(path.intrinsics),
        world_from_camera=_tensor(path.world_from_camera),
        scale=ScaleKind.METRIC,
    )


def _with_cameras(found: Geometry, clip: TrainingClip, name: str, notify: Notify) -> Geometry:
    """The estimated depth seen from the given cameras, which are brought to its unit."""
    assert clip.camera is not None
    own = found.intrinsics[0].double().cpu().numpy()
    median = float(found.median_depth())
    path = clip.camera.resolve(own, found.size, median, metric=True)
    poses = np.array(path.world_from_camera)
    if clip.camera.unit is LengthUnit.SCENE:
        factor = _fitted_scale(clip.camera, found.world_from_camera.double().cpu().numpy())
        poses[:, :3, 3] *= factor
        notify(
            f"the cameras count in scene units: {factor:.4g} units of the depth of {name} each, "
            "by how far it sees the camera move."
        )
    return replace(
        found,
        intrinsics=_tensor(path.intrinsics).to(found.depth),
        world_from_camera=_tensor(poses).to(found.depth),
    )


def _fitted_scale(given: Trajectory, estimated: np.ndarray) -> float:
    """Estimated over given distance of the cameras from their mean place."""
    spreads = [
        float(np.linalg.norm(p[:, :3, 3] - p[:, :3, 3].mean(0), axis=1).mean())
        for p in (given.world_from_camera, estimated)
    ]
    if spreads[0] < _LEAST_MOTION or spreads[1] < _LEAST_MOTION:
        raise InputError(
            "The cameras count in scene units but hardly move, so that their unit cannot be "
            "found; give --depth FILE, or a camera file in metres or median depths."
        )
    return spreads[1] / spreads[0]


def _tensor(array: np.ndarray | None) -> Tensor:
    assert array is not None
    return torch.from_numpy(np.array(array)).float()


def _write(file: Path, geometry: Geometry) -> None:
    tensors = {
        "depth": geometry.depth.float(),
        "confidence": geometry.confidence.half(),
        "valid": geometry.valid.to(torch.uint8),
        "intrinsics": geometry.intrinsics.float(),
        "world_from_camera": geometry.world_from_camera.float(),
    }
    with replacing(file) as partial:
        save_file(
            {k: v.cpu().contiguous() for k, v in tensors.items()},
            partial,
            metadata={"scale": str(geometry.scale)},
        )


def _read(file: Path) -> Geometry | None:
    try:
        stored = load_file(file)
        return Geometry(
            depth=stored["depth"],
            confidence=stored["confidence"].float(),
            valid=stored["valid"].bool(),
            intrinsics=stored["intrinsics"],
            world_from_camera=stored["world_from_camera"],
            scale=ScaleKind.METRIC,
        )
    except (OSError, SafetensorError, KeyError):
        return None
