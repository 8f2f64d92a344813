"""The Geometry value: what an estimator says about frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from flythrough.errors import GeometryError
from flythrough.geometry.quantile import quantile


class ScaleKind(StrEnum):
    """What is known about the unit of depth."""

    METRIC = "metric"
    SCALE_INVARIANT = "scale-invariant"
    AFFINE = "affine"


@dataclass(frozen=True, eq=False)
class Geometry:
    """Depth and cameras of N frames, float32, all on one device.

    Attributes:
        depth: [N,H,W] z-depth (along the optical axis, not the ray), 0 where nothing is known. A
            positive value at a pixel that is not ``valid`` is a guess, used only when nothing
            better exists.
        confidence: [N,H,W] in [0,1].
        valid: [N,H,W] bool; valid pixels have a finite positive depth.
        intrinsics: [N,3,3] in pixels of H x W, pixel centres at half-integers.
        world_from_camera: [N,4,4], OpenCV axes.
        scale: what is known about the unit.

    Raises:
        GeometryError: shapes that disagree, or a valid pixel without finite positive depth.
    """

    depth: Tensor
    confidence: Tensor
    valid: Tensor
    intrinsics: Tensor
    world_from_camera: Tensor
    scale: ScaleKind

    def __post_init__(self) -> None:
        if self.depth.ndim != 3 or self.depth.numel() == 0:
            raise GeometryError(
                f"The geometry's depth has shape {tuple(self.depth.shape)}; give [N, H, W] with at "
                "least one pixel."
            )
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
        wrong = self.valid & ~((self.depth > 0) & torch.isfinite(self.depth))
        if bool(wrong.any()):
            raise GeometryError(
                f"The geometry marks {int(wrong.sum())} pixel(s) valid whose depth is not finite "
                "and positive; clear valid there."
            )

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.depth.shape[1], self.depth.shape[2]

    def _tensors(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _derived(self, **changes: Tensor) -> Geometry:
        """With some tensors replaced by such as keep what was checked, so that nothing has to be
        asked of the device."""
        made = object.__new__(Geometry)
        made.__dict__.update(vars(self) | changes)
        return made

    def frame(self, index: int) -> Geometry:
        """The geometry of one frame (N = 1); negative indices count from the end."""
        if not -len(self) <= index < len(self):
            raise GeometryError(
                f"Frame {index} was asked for but the geometry has {len(self)}; count from 0."
            )
        at = index % len(self)
        return self._derived(**{k: v[at : at + 1] for k, v in self._tensors().items()})

    def to(self, device: torch.device | str) -> Geometry:
        """The same values on another device."""
        return self._derived(**{k: v.to(device) for k, v in self._tensors().items()})

    def points_camera(self) -> Tensor:
        """Points [N,H,W,3] in each camera's frame."""
        return unproject(self.depth, self.intrinsics)

    def points_world(self) -> Tensor:
        """Points [N,H,W,3] in the world frame."""
        return moved(self.points_camera(), self.world_from_camera)

    def median_depth(self, frame: int = 0) -> Tensor:
        """Median over valid pixels of one frame (scalar); 1 where nothing is valid."""
        depths = self.depth[frame][self.valid[frame]]
        return quantile(depths, 0.5) if len(depths) else self.depth.new_ones(())

    def placed(self, world_from_camera: Tensor) -> Geometry:
        """The same depth seen from other cameras [N,4,4]."""
        if world_from_camera.shape == self.world_from_camera.shape:
            return self._derived(world_from_camera=world_from_camera)
        return replace(self, world_from_camera=world_from_camera)

    def with_depth_scaled(self, factor: Tensor | float) -> Geometry:
        """Depth times a positive ``factor`` with the cameras left where they are."""
        return self._rescaled(factor, depth=self.depth * factor)

    def scaled(self, factor: Tensor | float) -> Geometry:
        """Depth and camera positions times a positive ``factor``: the scene in another unit."""
        cameras = self.world_from_camera.clone()
        cameras[:, :3, 3] *= factor
        return self._rescaled(factor, depth=self.depth * factor, world_from_camera=cameras)

    def _rescaled(self, factor: Tensor | float, **changes: Any) -> Geometry:
        """A number may be anything and is checked; a tensor is a fit, which is bounded."""
        return self._derived(**changes) if isinstance(factor, Tensor) else replace(self, **changes)


def unproject(depth: Tensor, intrinsics: Tensor, stride: int = 1) -> Tensor:
    """Camera-frame points [N,H,W,3] from z-depth [N,H,W] and pinhole matrices [N,3,3].

    Pixel centres at half-integers: the ray of pixel (0,0) goes through image position (0.5, 0.5).
    With a ``stride``, depth is that of every so many pixels of the picture, from the first on.
    """
    v, u = (
        torch.arange(0, stride * side, stride, device=depth.device, dtype=depth.dtype) + 0.5
        for side in depth.shape[1:]
    )
    fx, fy = intrinsics[:, 0, 0, None, None], intrinsics[:, 1, 1, None, None]
    cx, cy = intrinsics[:, 0, 2, None, None], intrinsics[:, 1, 2, None, None]
    x = (u[None, None, :] - cx) / fx * depth
    y = (v[None, :, None] - cy) / fy * depth
    return torch.stack((x, y, depth), dim=-1)


def moved(points: Tensor, world_from_camera: Tensor) -> Tensor:
    """Camera-frame points [N,H,W,3] in the world frame of cameras [N,4,4]."""
    rotation = world_from_camera[:, None, :3, :3].transpose(-1, -2)
    return points @ rotation + world_from_camera[:, None, None, :3, 3]
