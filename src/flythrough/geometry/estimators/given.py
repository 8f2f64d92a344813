"""Depth that the user brings along for the photo."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flythrough.cameras.intrinsics import check_intrinsics
from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Capabilities, check_images, known_intrinsics
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.fitting import default_intrinsics

_ASPECT_TOLERANCE = 0.03


class GivenDepth:
    """One z-depth map for one photo, resized (nearest) to it.

    Args:
        depth: [H,W] (or [1,H,W], [H,W,1]) numbers, positive where known, 0 where not; their unit
            becomes the scene unit.
        name: what messages call it.
        intrinsics: [3,3] in pixels of the depth map's size, or None for the default field of view.

    Raises:
        GeometryError: not one finite, non-negative number a pixel, or no positive one.
        CameraError: intrinsics that are not a pinhole matrix.
    """

    capabilities = Capabilities(scale=ScaleKind.SCALE_INVARIANT, max_views=1)

    def __init__(self, depth: np.ndarray, name: str, intrinsics: np.ndarray | None = None) -> None:
        self.name = name
        self.depth = torch.from_numpy(checked_depth(depth, name))
        if intrinsics is None:
            self.intrinsics = torch.from_numpy(default_intrinsics(*self.depth.shape)).float()
        else:
            matrix = check_intrinsics(intrinsics, f"The intrinsics of {name}")
            self.intrinsics = torch.from_numpy(matrix).float()
        if tuple(self.intrinsics.shape) != (3, 3):
            raise GeometryError(
                f"The intrinsics of {name} have shape {tuple(self.intrinsics.shape)}; give one 3x3 "
                "matrix."
            )

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """The depth map at the size of the one picture [1,3,H,W].

        Raises:
            GeometryError: the picture has another aspect ratio, or there is more than one.
        """
        check_images(images, self.name, 1)
        height, width = images.shape[-2:]
        own_height, own_width = self.depth.shape
        if abs((own_width / own_height) / (width / height) - 1) > _ASPECT_TOLERANCE:
            raise GeometryError(
                f"The depth map {self.name} is {own_height}x{own_width} but the picture is "
                f"{height}x{width}; both must show the same view, so crop the depth map alike."
            )
        if intrinsics is None:
            rows = torch.tensor([width / own_width, height / own_height, 1.0])
            intrinsics = self.intrinsics * rows[:, None]
        depth = functional.interpolate(
            self.depth[None, None], (height, width), mode="nearest-exact"
        )[0]
        depth = depth.to(images.device)
        return Geometry(
            depth=depth,
            confidence=(depth > 0).float(),
            valid=depth > 0,
            intrinsics=known_intrinsics(intrinsics, images),
            world_from_camera=torch.eye(4, device=images.device)[None],
            scale=self.capabilities.scale,
        )


def checked_depth(depth: np.ndarray, name: str) -> np.ndarray:
    """A depth map as float32 [H,W] after checking that it is one.

    Raises:
        GeometryError: another shape or type, NaN, infinite or negative values, nothing positive.
    """
    plane = depth[..., 0] if depth.ndim == 3 and depth.shape[-1] == 1 else depth
    plane = plane[0] if plane.ndim == 3 and len(plane) == 1 else plane
    if plane.ndim != 2 or plane.size == 0 or plane.dtype.kind not in "fiu":
        raise GeometryError(
            f"The depth map {name} has shape {depth.shape} and type {depth.dtype}; give one number "
            "a pixel, [H, W]."
        )
    values = plane.astype(np.float32)
    if not np.isfinite(values).all():
        raise GeometryError(
            f"The depth map {name} holds NaN or infinite values; write 0 where depth is unknown."
        )
    if (values < 0).any():
        raise GeometryError(
            f"The depth map {name} holds negative depth ({values.min():.3g}); depth is positive "
            "along the optical axis, 0 where unknown."
        )
    if not (values > 0).any():
        raise GeometryError(f"The depth map {name} has no valid pixel; check its unit and channel.")
    return np.ascontiguousarray(values)
