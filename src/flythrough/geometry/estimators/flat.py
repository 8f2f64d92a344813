"""A wall at depth 1 in front of the camera: an explicit choice, never a fallback."""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.geometry.estimator import Capabilities, check_images, known_intrinsics
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.media.fitting import default_intrinsics


class FlatDepth:
    """Depth 1 everywhere; the default field of view unless intrinsics are given."""

    name = "flat"
    capabilities = Capabilities(scale=ScaleKind.SCALE_INVARIANT)

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """A plane of depth 1 for every picture [N,3,H,W], each in its own camera frame."""
        check_images(images, self.name, None)
        count, _, height, width = images.shape
        if intrinsics is None:
            intrinsics = torch.from_numpy(default_intrinsics(height, width))
        depth = torch.ones(count, height, width, device=images.device)
        return Geometry(
            depth=depth,
            confidence=torch.ones_like(depth),
            valid=torch.ones_like(depth, dtype=torch.bool),
            intrinsics=known_intrinsics(intrinsics, images),
            world_from_camera=torch.eye(4, device=images.device).expand(count, 4, 4),
            scale=self.capabilities.scale,
        )
