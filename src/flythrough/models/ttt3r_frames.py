"""Pictures in the network's shapes, and the focal length of what comes out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.ttt3r_config import PATCH

_ROUNDS = 10
_LEAST = 1e-8


@dataclass(frozen=True)
class Framing:
    """How a picture lies in the network's: ``inner`` (height, width) after scaling, and the rows
    and columns of repeated border before it (``top``, ``left``) up to the ``outer`` size."""

    inner: tuple[int, int]
    outer: tuple[int, int]
    top: int
    left: int

    def cut(self, maps: Tensor) -> Tensor:
        """The picture's part of maps [N,H,W,...] of the outer size."""
        rows = slice(self.top, self.top + self.inner[0])
        return maps[:, rows, self.left : self.left + self.inner[1]]


def framing(size: tuple[int, int], long_side: int) -> Framing:
    """For a picture of ``size``: its longer side becomes ``long_side``, and border is added up to
    whole patches of 16. The whole picture stays in view and keeps its shape."""
    factor = long_side / max(size)
    inner = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    outer = -(-inner[0] // PATCH) * PATCH, -(-inner[1] // PATCH) * PATCH
    return Framing(inner, outer, (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2)


def framed(images: Tensor, frame: Framing) -> Tensor:
    """Images [N,3,H,W] scaled, their border pixels repeated outwards."""
    if images.shape[-2:] != frame.inner:
        images = functional.interpolate(
            images, size=frame.inner, mode="bicubic", antialias=True
        ).clamp(0, 1)
    below = frame.outer[0] - frame.inner[0] - frame.top
    right = frame.outer[1] - frame.inner[1] - frame.left
    return functional.pad(images, (frame.left, right, frame.top, below), mode="replicate")


def focal_from_points(points: Tensor) -> Tensor:
    """Focal lengths [N] in pixels of point maps [N,H,W,3], the principal point in the middle.

    The one that the pixels agree on in the sense of least distances (Weiszfeld's iteration).
    """
    count, height, width, _ = points.shape
    u = torch.arange(width, device=points.device) + 0.5 - width / 2
    v = torch.arange(height, device=points.device) + 0.5 - height / 2
    pixels = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).reshape(1, -1, 2)
    slopes = (points[..., :2] / points[..., 2:]).flatten(1, 2)
    slopes = torch.nan_to_num(slopes.double(), 0.0, 0.0, 0.0)
    pixels = pixels.double()
    along, square = (pixels * slopes).sum(-1), slopes.square().sum(-1)
    weight = torch.ones(count, height * width, dtype=torch.float64, device=points.device)
    focal = slopes.new_zeros(count)
    for _ in range(_ROUNDS + 1):
        focal = (weight * along).sum(1) / (weight * square).sum(1).clamp_min(_LEAST)
        away = (pixels - focal[:, None, None] * slopes).norm(dim=-1)
        weight = 1 / away.clamp_min(_LEAST)
    return focal.to(points.dtype)
