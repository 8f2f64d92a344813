"""Pi3X as a geometry estimator: photographs in, depth, confidence and cameras out."""

from __future__ import annotations

from math import sqrt
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import GeometryError
from flythrough.geometry.edges import depth_edge
from flythrough.geometry.estimator import Capabilities, Estimator, check_images
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.pi3x import Pi3X, Pi3XOutput
from flythrough.models.pi3x_config import PATCH
from flythrough.models.pi3x_files import load_pi3x
from flythrough.models.pi3x_priors import Priors, rigid_inverse

CONFIDENT = 0.1  # published threshold on the confidence
_EDGE = 0.03  # relative depth jump that must not be blended across
MAX_VIEWS = 64
"""Frames in one call."""


class Pi3XEstimator:
    """Estimates metric geometry of one or more views with a Pi3X network.

    All views of a call share one world frame, the first view's camera frame. Depth jumps are kept
    sharp; pixels next to them stay valid and are left to the mesh to cut. Pixels of at most
    ``confident`` confidence keep their depth but are not valid. ``pixel_limit`` makes the network
    see smaller pictures than its configuration says, never larger ones.
    """

    name = "pi3x"

    def __init__(
        self, net: Pi3X, confident: float = CONFIDENT, pixel_limit: int | None = None
    ) -> None:
        self.net, self.confident = net, confident
        own = net.config.pixel_limit
        self.pixel_limit = own if pixel_limit is None else min(own, pixel_limit)
        self.capabilities = Capabilities(
            scale=ScaleKind.METRIC,
            max_views=MAX_VIEWS,
            predicts_poses=True,
            uses_intrinsics=net.config.multimodal,
        )

    @torch.no_grad()
    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """Geometry of ``images`` [N,3,H,W] in [0,1], at their size.

        Known ``intrinsics`` ([3,3] or [N,3,3], pixels at H x W, centres at half-integers) are kept
        as they are, and a multimodal network also sees them; otherwise focal lengths are fitted to
        the predicted rays with the principal point in the middle.

        Raises:
            GeometryError: images or intrinsics of another shape, or too many views.
        """
        check_images(images, self.name, self.capabilities.max_views)
        known = _checked(images, intrinsics)
        size = (images.shape[-2], images.shape[-1])
        inner = network_size(size[0], size[1], self.pixel_limit)
        out = self._run(_resized(images.float(), inner), known, size)
        if known is None:
            known = _scaled(intrinsics_from_rays(out.rays[0]), inner, size)
        depth = resize_depth(out.local_points[0, ..., 2], size)
        confidence = _resized(out.conf[0].sigmoid().permute(0, 3, 1, 2), size)[:, 0]
        depth = torch.where(torch.isfinite(depth), depth, 0.0).clamp_min(0)
        valid = (confidence > self.confident) & (depth > 0)
        poses = out.camera_poses[0]
        anchored = rigid_inverse(poses[:1]) @ poses
        anchored[0] = torch.eye(4, device=poses.device)
        return Geometry(
            depth=depth,
            confidence=confidence,
            valid=valid,
            intrinsics=known.to(depth),
            world_from_camera=anchored,
            scale=ScaleKind.METRIC,
        )

    def _run(self, images: Tensor, known: Tensor | None, size: tuple[int, int]) -> Pi3XOutput:
        device = self.net.image_mean.device
        priors = None
        if known is not None and self.net.config.multimodal:
            inner = (images.shape[-2], images.shape[-1])
            priors = Priors(intrinsics=_scaled(known, size, inner)[None].to(device))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return self.net(images[None].to(device), priors)


def pi3x_estimator(
    folder: str | Path,
    *,
    device: torch.device | str = "cpu",
    confident: float = CONFIDENT,
    pixel_limit: int | None = None,
) -> Estimator:
    """The estimator of a geometry folder (``load_pi3x`` says what may be wrong with it)."""
    return Pi3XEstimator(load_pi3x(folder, device=device), confident, pixel_limit)


def network_size(height: int, width: int, limit: int) -> tuple[int, int]:
    """Size that a picture is stretched to: near its shape, in patches, of at most ``limit`` pixels.

    Both sides are multiples of 14; small pictures are enlarged to the limit too.
    """
    scale = sqrt(limit / (width * height))
    across, down = width * scale / PATCH, height * scale / PATCH
    columns, rows = max(1, round(across)), max(1, round(down))
    while columns * rows * PATCH**2 > limit and columns * rows > 1:
        if rows == 1 or (columns > 1 and columns / rows > across / down):
            columns -= 1
        else:
            rows -= 1
    return rows * PATCH, columns * PATCH


def intrinsics_from_rays(rays: Tensor) -> Tensor:
    """Pinhole matrices [N,3,3] for ray maps [N,H,W,3] of any length, principal point (W/2, H/2).

    Least squares for each focal length on its own; pixel centres are at half-integers.
    """
    count, height, width, _ = rays.shape
    slopes = rays[..., :2] / (rays[..., 2:].abs() + 1e-10)
    u = torch.arange(width, device=rays.device) + 0.5 - width / 2
    v = torch.arange(height, device=rays.device) + 0.5 - height / 2
    x, y = slopes.flatten(1, 2).unbind(-1)
    fx = (x * u.repeat(height)).sum(1) / x.square().sum(1)
    fy = (y * v.repeat_interleave(width)).sum(1) / y.square().sum(1)
    matrix = torch.zeros(count, 3, 3, device=rays.device)
    matrix[:, 0, 0], matrix[:, 1, 1] = fx, fy
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = width / 2, height / 2, 1
    return matrix


def resize_depth(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth [N,h,w] at another ``size``: bilinear on surfaces, nearest where it jumps.

    Blending across a jump would invent points that float between foreground and background.
    """
    if depth.shape[-2:] == tuple(size):
        return depth
    jumps = depth_edge(depth, rtol=_EDGE)[:, None].float()
    nearest = functional.interpolate(depth[:, None], size=size, mode="nearest-exact")
    smooth = functional.interpolate(depth[:, None], size=size, mode="bilinear")
    jumps = functional.interpolate(jumps, size=size, mode="nearest-exact")
    return torch.where(jumps > 0, nearest, smooth)[:, 0]


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.shape[-2:] == tuple(size):
        return images
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def _scaled(intrinsics: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Intrinsics [N,3,3] of a picture of size ``old`` (H, W) after it is stretched to ``new``."""
    # Filled on the device: a tensor of numbers from the host would wait for the copy.
    shares = (new[1] / old[1], new[0] / old[0], 1.0)
    factors = torch.cat([intrinsics.new_full((1,), share) for share in shares])
    return intrinsics * factors[:, None]


def _checked(images: Tensor, intrinsics: Tensor | None) -> Tensor | None:
    """Raise on unusable input; known intrinsics come back as [N,3,3] float32."""
    if images.ndim != 4 or images.shape[1] != 3 or not 1 <= images.shape[0] <= MAX_VIEWS:
        raise GeometryError(
            f"Images of shape {tuple(images.shape)} cannot be estimated; give [N, 3, H, W] with "
            f"1 to {MAX_VIEWS} views."
        )
    if intrinsics is None:
        return None
    known = intrinsics.float()
    if known.shape == (3, 3):
        known = known.expand(images.shape[0], 3, 3)
    if known.shape != (images.shape[0], 3, 3):
        raise GeometryError(
            f"Intrinsics of shape {tuple(intrinsics.shape)} do not fit {images.shape[0]} views; "
            "give one 3x3 matrix or one for each view."
        )
    return known
