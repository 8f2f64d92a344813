"""Optional knowledge for Pi3X (depth, rays, poses), resolved and normalised for the network.

Depth and translations are divided by their own scale on entry, so priors shape the result but never
set its absolute size; that is always the network's own metric estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import GeometryError

_STATIC = 0.02  # translations below this (in mean depths) count as a fixed rig
_EPS = 1e-8


@dataclass(frozen=True, kw_only=True, eq=False)
class Priors:
    """What the caller knows about B samples of N views; every part is optional.

    depths: [B,N,H,W] z-depth, one unit per sample, <= 0 where missing, finite.
    intrinsics: [B,N,3,3] pixels at the images' size, pixel centres at half-integers.
    rays: [B,N,H,W,3] directions in the camera frame, instead of intrinsics.
    poses: [B,N,4,4] camera-to-world, OpenCV axes, rigid.
    use_depth, use_rays, use_poses: [B,N] bool, which views use it (None: every view, if given).
    enabled: False ignores every prior that has no switch of its own.
    """

    depths: Tensor | None = None
    intrinsics: Tensor | None = None
    rays: Tensor | None = None
    poses: Tensor | None = None
    use_depth: Tensor | None = None
    use_rays: Tensor | None = None
    use_poses: Tensor | None = None
    enabled: bool = True


@dataclass(frozen=True, eq=False)
class PreparedPriors:
    """Network inputs; a part is None when no view of the batch uses it.

    depth: [B,N,2,H,W] depth over its mean, and validity. rays: [B,N,2,H,W] (x/z, y/z).
    poses: [B,N,4,4] camera-to-world relative to view 0. The masks are [B,N] bool.
    """

    depth: Tensor | None
    rays: Tensor | None
    poses: Tensor | None
    use_depth: Tensor
    use_rays: Tensor
    use_poses: Tensor


def prepare_priors(priors: Priors, images: Tensor) -> PreparedPriors:
    """Resolve switches and bring priors to the network's scale; ``images`` is [B,N,3,H,W].

    Nothing of the caller's is changed. Raises GeometryError for a shape that does not fit the
    images, a switch without its prior, or depth that is not finite.
    """
    _check(priors, images)
    views = images.shape[:2]
    has_rays = priors.intrinsics is not None or priors.rays is not None
    use_depth = _switch(priors.use_depth, priors.enabled and priors.depths is not None, images)
    use_rays = _switch(priors.use_rays, priors.enabled and has_rays, images)
    use_poses = _switch(priors.use_poses, priors.enabled and priors.poses is not None, images)
    use_poses = use_poses & (use_poses.sum(dim=1, keepdim=True) != 1)  # a lone pose says nothing
    depth, scale = None, images.new_ones(views[0])
    if priors.depths is not None:
        depth, scale = _normalised_depth(priors.depths.float())
    poses = None
    if priors.poses is not None and bool(use_poses.any()):
        poses = _normalised_poses(priors.poses.float(), scale, use_depth)
    return PreparedPriors(
        depth=depth if bool(use_depth.any()) else None,
        rays=_ray_slopes(priors, images.shape[-2:]) if bool(use_rays.any()) else None,
        poses=poses,
        use_depth=use_depth,
        use_rays=use_rays,
        use_poses=use_poses,
    )


def rigid_inverse(pose: Tensor) -> Tensor:
    """Inverse of rigid [..., 4, 4] matrices, from the transposed rotation."""
    rotation = pose[..., :3, :3].mT
    top = torch.cat([rotation, -rotation @ pose[..., :3, 3:]], dim=-1)
    last = pose.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*pose.shape[:-2], 1, 4)
    return torch.cat([top, last], dim=-2)


def with_translation(pose: Tensor, translation: Tensor) -> Tensor:
    """``pose`` [..., 4, 4] with another translation [..., 3], out of place (gradients survive)."""
    top = torch.cat([pose[..., :3, :3], translation[..., None]], dim=-1)
    return torch.cat([top, pose[..., 3:, :]], dim=-2)


def pixel_slopes(intrinsics: Tensor, height: int, width: int) -> Tensor:
    """(x/z, y/z) [..., H, W, 2] of pixel centres under ``intrinsics`` [..., 3, 3]."""
    options: dict[str, Any] = {"device": intrinsics.device, "dtype": intrinsics.dtype}
    u = torch.arange(width, **options) + 0.5
    v = torch.arange(height, **options) + 0.5
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1)
    pixels = functional.pad(grid, (0, 1), value=1.0).reshape(-1, 3)
    rays = pixels @ torch.linalg.inv(intrinsics).mT
    return rays[..., :2].unflatten(-2, (height, width))


def _normalised_depth(depths: Tensor) -> tuple[Tensor, Tensor]:
    """Depth over the mean of all valid pixels of all views, with validity; and that mean [B]."""
    valid = depths > 0
    total = (depths * valid).flatten(1).sum(1)
    count = valid.flatten(1).sum(1)
    mean = torch.where(count > 0, total / count.clamp(min=1), 1.0)
    depth = depths / (mean[:, None, None, None] + _EPS)
    return torch.stack([depth, valid.to(depth.dtype)], dim=2), mean


def _normalised_poses(poses: Tensor, depth_scale: Tensor, use_depth: Tensor) -> Tensor:
    """Poses relative to view 0 in mean depths; in mean travel where no view has depth."""
    relative = rigid_inverse(poses[:, :1]) @ poses
    translation = relative[..., :3, 3] / depth_scale[:, None, None]
    if poses.shape[1] > 1:
        travel = translation[:, 1:].norm(dim=-1)
        moving = (travel.amax(dim=1) >= _STATIC) & ~use_depth.any(dim=1)
        divisor = torch.where(moving, travel.mean(dim=1) + _EPS, 1.0)
        translation = translation / divisor[:, None, None]
    return with_translation(relative, translation)


def _ray_slopes(priors: Priors, size: torch.Size) -> Tensor:
    if priors.rays is not None:
        rays = priors.rays.float()
        slopes = rays[..., :2] / (rays[..., 2:] + 1e-6)
    elif priors.intrinsics is not None:
        slopes = pixel_slopes(priors.intrinsics.float(), size[0], size[1])
    else:
        raise GeometryError("Rays are switched on without intrinsics or rays; give one of them.")
    return slopes.permute(0, 1, 4, 2, 3)


def _switch(given: Tensor | None, default: bool, images: Tensor) -> Tensor:
    if given is None:
        return torch.full(images.shape[:2], default, dtype=torch.bool, device=images.device)
    return given.to(device=images.device, dtype=torch.bool)


def _check(priors: Priors, images: Tensor) -> None:
    batch, views, _, height, width = images.shape
    expected = {
        "depths": (batch, views, height, width),
        "intrinsics": (batch, views, 3, 3),
        "rays": (batch, views, height, width, 3),
        "poses": (batch, views, 4, 4),
        "use_depth": (batch, views),
        "use_rays": (batch, views),
        "use_poses": (batch, views),
    }
    for name, shape in expected.items():
        value = getattr(priors, name)
        if value is not None and tuple(value.shape) != shape:
            raise GeometryError(
                f"The prior {name} has shape {tuple(value.shape)} but these images need {shape}; "
                "reshape or resize it."
            )
    missing = {
        "use_depth": priors.depths is None,
        "use_rays": priors.intrinsics is None and priors.rays is None,
        "use_poses": priors.poses is None,
    }
    for name, absent in missing.items():
        switch = getattr(priors, name)
        if absent and switch is not None and bool(switch.any()):
            raise GeometryError(
                f"{name} switches on a prior that is not given; give the prior or drop the switch."
            )
    if priors.depths is not None and not bool(torch.isfinite(priors.depths).all()):
        raise GeometryError("The depth prior holds values that are not finite; set them to 0.")
