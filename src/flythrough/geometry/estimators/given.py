"""Depth that the user brings along: .npy, .npz or 16-bit .png in millimetres."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Capabilities, check_images
from flythrough.geometry.types import Geometry, ScaleKind

_ASPECT_TOLERANCE = 0.03
_DEFAULT_FOV_DEG = 60.0


class GivenDepth:
    """One z-depth map for the photo, resized (nearest) to it.

    Args:
        depth: [H,W] positive where known, 0 where not; its unit becomes the scene unit.
        name: what to call it in messages.
        intrinsics: [3,3] in pixels of the depth map's size, or None for a 60 degree view.
    """

    capabilities = Capabilities(scale=ScaleKind.SCALE_INVARIANT, max_views=1)

    def __init__(self, depth: np.ndarray, name: str, intrinsics: np.ndarray | None = None) -> None:
        self.name = name
        self.depth = torch.from_numpy(_checked(depth, name))
        self.matrix = None if intrinsics is None else torch.from_numpy(np.array(intrinsics)).float()

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        check_images(images, self.name, 1)
        height, width = images.shape[-2:]
        own_height, own_width = self.depth.shape
        if abs((own_width / own_height) / (width / height) - 1) > _ASPECT_TOLERANCE:
            raise GeometryError(
                f"The depth map {self.name} is {own_height}x{own_width} but the picture is "
                f"{height}x{width}; both must show the same view, so crop the depth map alike."
            )
        depth = F.interpolate(self.depth[None, None], (height, width), mode="nearest")[0]
        depth = depth.to(images.device)
        matrix = self._matrix(height, width) if intrinsics is None else intrinsics
        return Geometry(
            depth=depth,
            confidence=(depth > 0).float(),
            valid=depth > 0,
            intrinsics=matrix.to(images.device).float(),
            world_from_camera=torch.eye(4, device=images.device)[None],
            scale=self.capabilities.scale,
        )

    def _matrix(self, height: int, width: int) -> Tensor:
        if self.matrix is not None:
            rows = torch.tensor([width / self.depth.shape[1], height / self.depth.shape[0], 1.0])
            return (self.matrix * rows[:, None])[None]
        focal = width / 2 / np.tan(np.radians(_DEFAULT_FOV_DEG / 2))
        return torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]]).float()


def read_depth(path: Path) -> GivenDepth:
    """A depth file.

    Raises:
        GeometryError: missing, unreadable, of the wrong shape, or without a valid pixel.
    """
    if not path.is_file():
        raise GeometryError(f"There is no depth file {path}; check the path.")
    try:
        if path.suffix == ".png":
            array = np.asarray(Image.open(path)).astype(np.float32) / 1000
            return GivenDepth(array, path.name)
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise GeometryError(
            f"The depth file {path} cannot be read ({error}); give .npy, .npz or a 16-bit .png."
        ) from error
    if isinstance(loaded, np.ndarray):
        return GivenDepth(loaded, path.name)
    key = "depth" if "depth" in loaded.files else next(iter(loaded.files), None)
    if key is None:
        raise GeometryError(f"The depth file {path} is empty; store an array named depth.")
    matrix = loaded["intrinsics"] if "intrinsics" in loaded.files else None
    if matrix is not None and matrix.ndim == 3:
        matrix = matrix[0]
    return GivenDepth(loaded[key], path.name, matrix)


def _checked(depth: np.ndarray, name: str) -> np.ndarray:
    if depth.ndim == 3 and depth.shape[0] >= 1:
        depth = depth[0]
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise GeometryError(
            f"The depth map {name} has shape {depth.shape} and type {depth.dtype}; give one number "
            "a pixel, [H, W]."
        )
    values = depth.astype(np.float32)
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
