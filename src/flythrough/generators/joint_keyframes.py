"""Keyframes whose depth is estimated in one call: consistent with each other by construction.

Ours keeps the cameras that were asked for and takes depth alone from the estimate. As published,
the estimated cameras and focal lengths are taken too, and the path goes on from the newest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flythrough.cameras import pose
from flythrough.geometry.align import DepthScale
from flythrough.geometry.estimator import Estimator
from flythrough.geometry.focal import smoothed_focals
from flythrough.geometry.joint import joint_estimate
from flythrough.geometry.types import Geometry
from flythrough.models.uploads import uploaded
from flythrough.scene.atlas import background_atlas
from flythrough.scene.mesh_memory import MeshMemory, over_atlas
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.surface import Keyframe


@dataclass(frozen=True, eq=False)
class Boundary:
    """The last frame of a chunk: ``image`` [3,H,W] in [0,1] with the camera that was asked for,
    ``world_from_camera`` [4,4] float64 and ``intrinsics`` [3,3] float64."""

    image: Tensor
    world_from_camera: np.ndarray
    intrinsics: np.ndarray

    @property
    def camera(self) -> tuple[Tensor, Tensor]:
        """Pose [1,4,4] and intrinsics [1,3,3] as the image's floats."""
        pair = (self.world_from_camera, self.intrinsics)
        at, dtype = self.image.device, self.image.dtype
        first, second = (uploaded(value, at, dtype)[None] for value in pair)
        return first, second


@dataclass(frozen=True, eq=False)
class JointKeyframes:
    """Keyframes, the photo first, and how they were brought to the scale of the photo alone."""

    keyframes: tuple[Keyframe, ...]
    fitted: DepthScale


def joint_keyframes(
    estimator: Estimator, photo: Keyframe, boundaries: Sequence[Boundary]
) -> JointKeyframes:
    """Photo and boundary frames estimated together, placed where they were asked for.

    Raises:
        GeometryError: more pictures than the estimator takes in one call.
    """
    images = torch.stack([photo.image, *(b.image for b in boundaries)])
    poses = torch.cat([photo.geometry.world_from_camera, *(b.camera[0] for b in boundaries)])
    matrices = torch.cat([photo.geometry.intrinsics, *(b.camera[1] for b in boundaries)])
    found = joint_estimate(estimator, images, photo.geometry, intrinsics=matrices)
    geometry = found.geometry.placed(poses)
    frames = [Keyframe(image, geometry.frame(n)) for n, image in enumerate(images)]
    return JointKeyframes((photo, *frames[1:]), found.fitted)


def published_view(
    estimator: Estimator,
    photo: Keyframe,
    boundaries: Sequence[Boundary],
    world_from_camera: np.ndarray,
    settings: WarpSettings,
) -> RenderedView:
    """What the published keyframe memory shows to cameras that go on from the newest boundary.

    Cameras and focal lengths are the estimated ones, the latter smoothed for projecting though not
    for lifting; every frame is drawn with the newest keyframe's, and nothing is filled at the top.

    Args:
        world_from_camera: [T,4,4] as asked for.
        settings: all given keyframes are drawn, ``older_keyframes`` or not.
    """
    images = torch.stack([photo.image, *(b.image for b in boundaries)])
    found = joint_estimate(estimator, images, photo.geometry, cut_edges=True).geometry
    step = pose.compose(pose.inverse(boundaries[-1].world_from_camera), world_from_camera)
    newest = found.world_from_camera[-1].double().cpu().numpy()
    cameras = torch.from_numpy(pose.compose(newest, step)).to(images.device)
    return published_rendering(images, found, cameras, settings)


def published_rendering(
    images: Tensor, found: Geometry, cameras: Tensor, settings: WarpSettings
) -> RenderedView:
    """All keyframes in one z-buffer, every frame drawn with the newest's smoothed focal length.

    Training renders its items by this too.

    Args:
        images: [N,3,H,W] in [0,1] with the geometry ``found`` of those N frames, the newest last.
        cameras: [T,4,4] in the world frame of ``found``.
    """
    size = (images.shape[-2], images.shape[-1])
    smooth = smoothed_focals(found.intrinsics, size)
    matrices = smooth[-1].expand(len(cameras), 3, 3)
    keyframes = [Keyframe(image, found.frame(n)) for n, image in enumerate(images)]
    bare = replace(settings, keyframes="joint", background="none", top_fill=False)
    view = MeshMemory(tuple(keyframes)).render(cameras, matrices, size, bare)
    if settings.background == "none":
        return view
    projected = replace(found, intrinsics=smooth)
    behind = background_atlas(
        [replace(k, geometry=projected.frame(n)) for n, k in enumerate(keyframes)]
    )
    return over_atlas(view, behind, cameras, matrices, seen=settings.background == "atlas")
