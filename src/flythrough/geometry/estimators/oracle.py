"""The exact depth of a procedural world, with dialled-in error: the known answer for tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flythrough import seeds
from flythrough.errors import GeometryError
from flythrough.geometry.estimator import Capabilities, check_images
from flythrough.geometry.types import Geometry, ScaleKind


@dataclass(frozen=True, kw_only=True)
class OracleError:
    """How wrong the oracle is: ``scale`` multiplies all depth, ``smooth`` is the deviation of a
    slowly varying factor, ``noise`` of a per-pixel one, ``holes`` the share of invalid pixels."""

    scale: float = 1.0
    smooth: float = 0.0
    noise: float = 0.0
    holes: float = 0.0
    seed: int = 0


class OracleDepth:
    """Hands out exact depth [N,H,W] (0 invalid) with cameras, disturbed by ``error``."""

    name = "oracle"
    capabilities = Capabilities(scale=ScaleKind.METRIC, predicts_poses=True)

    def __init__(
        self,
        depth: Tensor,
        intrinsics: Tensor,
        world_from_camera: Tensor | None = None,
        error: OracleError | None = None,
    ) -> None:
        self.depth, self.intrinsics = depth.float(), intrinsics.float()
        eye = torch.eye(4, device=depth.device).expand(len(depth), 4, 4)
        self.cameras = eye if world_from_camera is None else world_from_camera.float()
        self.error = error or OracleError()

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        check_images(images, self.name, len(self.depth))
        count = len(images)
        if images.shape[-2:] != self.depth.shape[-2:]:
            raise GeometryError(
                f"Pictures are {tuple(images.shape[-2:])} but the exact depth is "
                f"{tuple(self.depth.shape[-2:])}; render both at one size."
            )
        depth = self._disturbed(self.depth[:count])
        valid = depth > 0
        return Geometry(
            depth=depth,
            confidence=valid.float(),
            valid=valid,
            intrinsics=self.intrinsics[:count] if intrinsics is None else intrinsics.float(),
            world_from_camera=self.cameras[:count],
            scale=ScaleKind.METRIC,
        )

    def _disturbed(self, depth: Tensor) -> Tensor:
        error = self.error
        source = seeds.generator(error.seed, "oracle")
        coarse = torch.randn(len(depth), 1, 4, 6, generator=source).to(depth)
        slow = F.interpolate(coarse, depth.shape[-2:], mode="bicubic", align_corners=False)[:, 0]
        fine = torch.randn(depth.shape, generator=source).to(depth)
        kept = torch.rand(depth.shape, generator=source).to(depth) >= error.holes
        factor = error.scale * torch.exp(error.smooth * slow + error.noise * fine)
        return depth * factor * kept
