"""Point splatting with a z-buffer, batched over frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.scene.mesh import Samples

NEAR = 1e-4
_BUDGET = {"cpu": 256 << 20, "cuda": 4 << 30}
_SCALARS = 14  # floating-point temporaries of one projected point, or one pixel
_INDICES = 72  # bytes of index and mask temporaries beside them
_KERNEL_PIXEL = 260  # bytes of a pixel where kernels draw: key, result, and what closes holes
_TAKEN = 0.6  # measured share of that worst case, where every point lies in the picture


@dataclass(frozen=True, eq=False)
class Splat:
    """What T cameras see of some samples, per pixel.

    Attributes:
        rgb: [T,H,W,3] in [0,1], 0 where unseen.
        depth: [T,H,W] z-depth in the target camera, 0 where unseen.
        seen: [T,H,W] bool.
        source_xy: [T,H,W,2] where in its source picture the winning sample came from.
        source: [T,H,W] int64, which picture that is; 0 where unseen.
    """

    rgb: Tensor
    depth: Tensor
    seen: Tensor
    source_xy: Tensor
    source: Tensor


def frames_per_pass(samples: Samples, size: tuple[int, int]) -> int:
    """How many frames of ``size`` to draw at once within the memory budget of the device."""
    scalar = samples.points.element_size()
    pixels = size[0] * size[1]
    a_frame = (len(samples) + pixels) * (_SCALARS * scalar + _INDICES)
    return max(1, _BUDGET.get(samples.points.device.type, _BUDGET["cpu"]) // a_frame)


def kernel_frames_per_pass(pixels: int) -> int:
    """The same where kernels draw: samples take no memory there, pixels do."""
    return max(1, _BUDGET["cuda"] // (pixels * _KERNEL_PIXEL))


def pass_bytes(device: str, size: tuple[int, int], points: int | None = None) -> int:
    """Bytes that drawing 33 frames of ``size`` takes on a kind of device; ``points`` (sixteen for a
    pixel unless given) lie in the scene. Less than the budget, which allows for the worst case."""
    pixels = size[0] * size[1]
    count = 16 * pixels if points is None else points
    a_frame = (count + pixels) * (_SCALARS * 4 + _INDICES)
    most = max(a_frame, min(33 * a_frame, _BUDGET.get(device, _BUDGET["cpu"])))
    return int(_TAKEN * most)


def splat(
    samples: Samples, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> Splat:
    """Draw points into T cameras, one pixel each; the nearest wins, among equals the last sample.

    All T frames are drawn in one pass; ``frames_per_pass`` says how many fit into memory.

    Args:
        samples: their dtype is that of the arithmetic.
        world_from_camera: [T,4,4], OpenCV axes.
        intrinsics: [T,3,3] in pixels of ``size``, pixel centres at half-integers.
        size: (height, width).
    """
    height, width = size
    frames, count = len(world_from_camera), len(samples)
    device = samples.points.device
    column, row, z, inside = _projected(samples.points, world_from_camera, intrinsics, size)
    frame = torch.arange(frames, device=device)[:, None]
    pixel = ((frame * height + row) * width + column)[inside]
    depth = z[inside]
    index = torch.arange(count, device=device).expand(frames, count)[inside]
    # Two reductions whose result does not depend on the order in which threads arrive.
    total = frames * height * width
    nearest = depth.new_full((total,), torch.inf).scatter_reduce(0, pixel, depth, "amin")
    wins = depth == nearest[pixel]
    winner = index.new_full((total,), -1).scatter_reduce(0, pixel[wins], index[wins], "amax")
    seen = winner >= 0
    chosen = winner.clamp_min(0)
    shape = (frames, height, width)
    return Splat(
        rgb=(samples.colours[chosen] * seen[:, None]).view(*shape, 3),
        depth=torch.where(seen, nearest, 0.0).view(shape),
        seen=seen.view(shape),
        source_xy=(samples.source_xy[chosen] * seen[:, None]).view(*shape, 2),
        source=(samples.source[chosen] * seen).view(shape),
    )


def _projected(
    points: Tensor, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixel column and row [T,M] int64, z-depth [T,M], and which points fall inside the picture."""
    height, width = size
    cameras, matrix = world_from_camera.to(points), intrinsics.to(points)[:, None]
    x, y, z = ((points - cameras[:, None, :3, 3]) @ cameras[:, :3, :3]).unbind(-1)
    # Half-integer centres minus 0.5: rounding then picks the pixel that covers the point.
    u = matrix[..., 0, 0] * x / z + (matrix[..., 0, 2] - 0.5)
    v = matrix[..., 1, 1] * y / z + (matrix[..., 1, 2] - 0.5)
    column, row = u.round_(), v.round_()
    inside = (z > NEAR) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    # Outside points are dropped by the caller; a plain 0 keeps their conversion defined.
    column, row = torch.where(inside, column, 0.0), torch.where(inside, row, 0.0)
    return column.long(), row.long(), z, inside
