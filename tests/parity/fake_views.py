"""An estimator with a known answer: the scene that the recorded keyframe runs were made on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.geometry.estimator import Capabilities
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.pi3x_estimator import intrinsics_from_rays


@dataclass(frozen=True)
class FakeViews:
    """A wavy slanted ground with a box in front, its upper part unsure; view k is a step further to
    the right and turned a little, whatever the pictures show."""

    near: float = 2.0
    slope: float = 1.5
    box: float = 1.0
    unsure: float = 0.3
    zoom: float = 0.0

    name = "fake"
    capabilities = Capabilities(scale=ScaleKind.METRIC, predicts_poses=True)

    def estimate(self, images: Tensor, *, intrinsics: Tensor | None = None) -> Geometry:
        """The same depth for every picture [N,3,H,W]; given intrinsics change nothing."""
        del intrinsics
        count, _, height, width = images.shape
        row = torch.arange(height, dtype=torch.float32)[:, None]
        column = torch.arange(width, dtype=torch.float32)[None]
        depth = (
            self.near + self.slope * (1 - row / (height - 1)) + 0.2 * (column * (6 / width)).sin()
        )
        rows = slice(int(0.35 * height), int(0.8 * height))
        depth[rows, int(0.4 * width) : int(0.65 * width)] = self.box
        confidence = torch.full((height, width), 4.0)
        confidence[: int(self.unsure * height)] = -4.0
        confidence = confidence.sigmoid().expand(count, -1, -1)
        rays, poses = [], []
        for number in range(count):
            focal = 0.8 * width * (1 + self.zoom * number)
            x, y = (column - (width - 1) / 2) / focal, (row - (height - 1) / 2) / focal
            rays.append(torch.stack([x * depth, y * depth, depth], -1))
            turned, pose = 0.01 * number, torch.eye(4)
            pose[0, 0] = pose[2, 2] = math.cos(turned)
            pose[0, 2], pose[2, 0] = math.sin(turned), -math.sin(turned)
            pose[:3, 3] = torch.tensor([0.05, 0, 0.02]) * number
            poses.append(pose)
        return Geometry(
            depth=depth.expand(count, -1, -1),
            confidence=confidence,
            valid=confidence > 0.1,
            intrinsics=intrinsics_from_rays(torch.stack(rays)),
            world_from_camera=torch.stack(poses),
            scale=ScaleKind.METRIC,
        )
