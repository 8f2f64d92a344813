"""The Geometry value: what an estimator says about frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from flythrough.errors import GeometryError


class ScaleKind(StrEnum):
    """What is known about the unit of depth."""

    METRIC = "metric"
    SCALE_INVARIANT = "scale-invariant"
    AFFINE = "affine"


@dataclass(frozen=True, eq=False)
class Geometry:
    """Depth and cameras of N frames, float32.

    Attributes:
        depth: [N,H,W] z-depth (along the optical axis, not the ray), 0 where invalid.
        confidence: [N,H,W] in [0,1].
        valid: [N,H,W] bool; valid pixels have a finite positive depth.
        intrinsics: [N,3,3] in pixels of H x W, pixel centres at half-integers.
        world_from_camera: [N,4,4], OpenCV axes.
        scale: what is known about the unit.

    Raises:
        GeometryError: shapes that disagree, or a valid pixel without positive depth.
    """

    depth: Tensor
    confidence: Tensor
    valid: Tensor
    intrinsics: Tensor
    world_from_camera: Tensor
    scale: ScaleKind

    def __post_init__(self) -> None:
        n = len(self.depth)
        expected = {
            "confidence": tuple(self.depth.shape),
            "valid": tuple(self.depth.shape),
            "intrinsics": (n, 3, 3),
            "world_from_camera": (n, 4, 4),
        }
        for name, shape in expected.items():
            if tuple(getattr(self, name).shape) != shape:
                raise GeometryError(
                    f"The geometry's {name} has shape {tuple(getattr(self, name).shape)} but its "
                    f"depth asks for {shape}; give one entry a frame."
                )

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.depth.shape[1], self.depth.shape[2]

    def frame(self, index: int) -> Geometry:
        """The geometry of one frame (N = 1)."""
        window = slice(index, index + 1) if index >= 0 else slice(index, index + 1 or None)
        return replace(
            self, **{k: v[window] for k, v in vars(self).items() if isinstance(v, Tensor)}
        )

    def to(self, device: torch.device | str) -> Geometry:
        """The same values on another device."""
        return replace(
            self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        )

    def points_camera(self) -> Tensor:
        """Points [N,H,W,3] in each camera's frame."""
        return unproject(self.depth, self.intrinsics)

    def points_world(self) -> Tensor:
        """Points [N,H,W,3] in the world frame."""
        rotation = self.world_from_camera[:, None, None, :3, :3]
        offset = self.world_from_camera[:, None, None, :3, 3]
        return (rotation @ self.points_camera()[..., None])[..., 0] + offset

    def median_depth(self, frame: int = 0) -> Tensor:
        """Median over valid pixels of one frame (scalar); 1 where nothing is valid."""
        depths = self.depth[frame][self.valid[frame]]
        return depths.median() if len(depths) else self.depth.new_ones(())

    def placed(self, world_from_camera: Tensor) -> Geometry:
        """The same depth seen from other cameras [N,4,4]."""
        return replace(self, world_from_camera=world_from_camera)

    def with_depth_scaled(self, factor: Tensor | float) -> Geometry:
        """Depth times ``factor`` with the cameras left where they are."""
        return replace(self, depth=self.depth * factor)

    def scaled(self, factor: Tensor | float) -> Geometry:
        """Depth and camera positions times ``factor``: the whole scene in another unit."""
        cameras = self.world_from_camera.clone()
        cameras[:, :3, 3] *= factor
        return replace(self, depth=self.depth * factor, world_from_camera=cameras)


def unproject(depth: Tensor, intrinsics: Tensor) -> Tensor:
    """Camera-frame points [N,H,W,3] from z-depth [N,H,W]; pixel centres at half-integers."""
    height, width = depth.shape[1:]
    u = torch.arange(width, device=depth.device, dtype=depth.dtype) + 0.5
    v = torch.arange(height, device=depth.device, dtype=depth.dtype) + 0.5
    fx, fy = intrinsics[:, 0, 0, None, None], intrinsics[:, 1, 1, None, None]
    cx, cy = intrinsics[:, 0, 2, None, None], intrinsics[:, 1, 2, None, None]
    x = (u[None, None, :] - cx) / fx * depth
    y = (v[None, :, None] - cy) / fy * depth
    return torch.stack((x, y, depth), dim=-1)
