"""A wall at depth 1 in front of the camera: an explicit choice for pictures without usable depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flythrough.geometry.estimator import Capabilities, check_images
from flythrough.geometry.types import Geometry, ScaleKind

_FOV_DEG = 60.0


class FlatDepth:
    """Depth 1 everywhere, 60 degrees across unless intrinsics are given."""

    name = "flat"
    capabilities = Capabilities(scale=ScaleKind.SCALE_INVARIANT)

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        check_images(images, self.name, None)
        count, _, height, width = images.shape
        depth = images.new_ones(count, height, width)
        if intrinsics is None:
            focal = width / 2 / math.tan(math.radians(_FOV_DEG / 2))
            matrix = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]]
            intrinsics = images.new_tensor(matrix).expand(count, 3, 3)
        return Geometry(
            depth=depth,
            confidence=torch.ones_like(depth),
            valid=torch.ones_like(depth, dtype=torch.bool),
            intrinsics=intrinsics.float(),
            world_from_camera=torch.eye(4, device=images.device).expand(count, 4, 4),
            scale=self.capabilities.scale,
        )
