"""Point splatting with a z-buffer, batched over frames (specification 12.5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.scene.mesh import Samples

_NEAR = 1e-4
_POINTS_PER_PASS = 4_000_000


@dataclass(frozen=True, eq=False)
class Splat:
    """Per pixel: ``rgb`` [T,H,W,3], ``depth`` [T,H,W] (0 unseen), ``seen`` [T,H,W] bool and
    ``source_xy`` [T,H,W,2] of the winning sample."""

    rgb: Tensor
    depth: Tensor
    seen: Tensor
    source_xy: Tensor


def splat(
    samples: Samples,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
) -> Splat:
    """Draw points into T cameras, one pixel each; the nearest wins, among equals the last sample.

    Args:
        world_from_camera: [T,4,4], OpenCV axes.
        intrinsics: [T,3,3] in pixels of ``size``, pixel centres at half-integers.
        size: (height, width).
    """
    per_pass = max(1, _POINTS_PER_PASS // max(1, len(samples.points)))
    parts = [
        _splat_frames(samples, cameras, matrices, size)
        for cameras, matrices in zip(
            world_from_camera.split(per_pass), intrinsics.split(per_pass), strict=True
        )
    ]
    return Splat(
        rgb=torch.cat([p.rgb for p in parts]),
        depth=torch.cat([p.depth for p in parts]),
        seen=torch.cat([p.seen for p in parts]),
        source_xy=torch.cat([p.source_xy for p in parts]),
    )


def _splat_frames(
    samples: Samples, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Splat:
    height, width = size
    frames, count = len(world_from_camera), len(samples.points)
    dtype = samples.points.dtype
    rotation = world_from_camera[:, :3, :3].to(dtype)
    centred = samples.points[None] - world_from_camera[:, None, :3, 3].to(dtype)
    x, y, z = (centred @ rotation).unbind(-1)
    matrix = intrinsics.to(dtype)[:, None]
    # Half-integer centres minus 0.5: rounding below then picks the pixel that covers the point.
    u = matrix[..., 0, 0] * x / z + (matrix[..., 0, 2] - 0.5)
    v = matrix[..., 1, 1] * y / z + (matrix[..., 1, 2] - 0.5)
    inside = (z > _NEAR) & (u > -1) & (v > -1) & (u < width) & (v < height)
    column = torch.where(inside, u, -u.new_ones(())).round().long()
    row = torch.where(inside, v, -v.new_ones(())).round().long()
    inside &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    frame = torch.arange(frames, device=z.device)[:, None].expand(frames, count)
    pixel = ((frame * height + row) * width + column)[inside]
    depth = z[inside]
    index = torch.arange(count, device=z.device).expand(frames, count)[inside]
    total = frames * height * width
    nearest = depth.new_full((total,), torch.inf).scatter_reduce(0, pixel, depth, "amin")
    wins = depth == nearest[pixel]
    winner = index.new_full((total,), -1).scatter_reduce(0, pixel[wins], index[wins], "amax")
    seen = winner >= 0
    chosen = winner.clamp_min(0)
    shape = (frames, height, width)
    return Splat(
        rgb=(samples.colours[chosen] * seen[:, None]).view(*shape, 3),
        depth=torch.where(seen, nearest, nearest.new_zeros(())).view(shape),
        seen=seen.view(shape),
        source_xy=(samples.source_xy[chosen] * seen[:, None]).view(*shape, 2),
    )
