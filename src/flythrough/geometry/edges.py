"""Depth and normal discontinuities, where a depth map must be cut before it is moved.

The definitions are those of Pi3X's published geometry utilities, batched over frames;
Warp-as-History cuts its meshes by the same rule.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def _extremes(values: Tensor, valid: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Largest and smallest valid value in each window; -inf/inf where there is none."""
    low = values.masked_fill(~valid, -math.inf)[:, None]
    high = (-values).masked_fill(~valid, -math.inf)[:, None]
    pad = kernel // 2
    largest = functional.max_pool2d(low, kernel, 1, pad)[:, 0]
    smallest = -functional.max_pool2d(high, kernel, 1, pad)[:, 0]
    return largest, smallest


def depth_edge(
    depth: Tensor,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    kernel: int = 3,
    mask: Tensor | None = None,
) -> Tensor:
    """Where depth [N,H,W] varies by more than ``atol``, or ``rtol`` of the centre, in a window.

    Pixels outside ``mask`` are ignored as neighbours; the mask is not applied to the result.
    """
    valid = torch.ones_like(depth, dtype=torch.bool) if mask is None else mask
    largest, smallest = _extremes(depth, valid, kernel)
    spread = largest - smallest
    edge = torch.zeros_like(valid)
    if atol is not None:
        edge |= spread > atol
    if rtol is not None:
        edge |= torch.nan_to_num(spread / depth, nan=0.0, posinf=0.0, neginf=0.0) > rtol
    return edge


def points_to_normals(points: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Normals [N,H,W,3] of a point map [N,H,W,3] and where they exist [N,H,W].

    The mean direction of the cross products with the four pairs of neighbours; they face the camera
    (negative z in OpenCV axes).
    """
    valid = torch.isfinite(points).all(-1)
    if mask is not None:
        valid = valid & mask
    clean = torch.where(valid[..., None], points, torch.zeros_like(points))
    around = functional.pad(clean, (0, 0, 1, 1, 1, 1))
    known = functional.pad(valid, (1, 1, 1, 1))
    up, down = around[:, :-2, 1:-1] - clean, around[:, 2:, 1:-1] - clean
    left, right = around[:, 1:-1, :-2] - clean, around[:, 1:-1, 2:] - clean
    seen_up, seen_down = known[:, :-2, 1:-1], known[:, 2:, 1:-1]
    seen_left, seen_right = known[:, 1:-1, :-2], known[:, 1:-1, 2:]
    pairs = (
        (up, left, seen_up & seen_left),
        (left, down, seen_left & seen_down),
        (down, right, seen_down & seen_right),
        (right, up, seen_right & seen_up),
    )
    total = torch.zeros_like(clean)
    found = torch.zeros_like(valid)
    for first, second, both in pairs:
        use = both & valid
        normal = functional.normalize(torch.linalg.cross(first, second, dim=-1), dim=-1, eps=1e-12)
        total = total + torch.where(use[..., None], normal, torch.zeros_like(normal))
        found = found | use
    return torch.nan_to_num(functional.normalize(total, dim=-1, eps=1e-12)), found


def normal_edge(
    normals: Tensor, *, tol_deg: float = 5.0, kernel: int = 3, mask: Tensor | None = None
) -> Tensor:
    """Where normals [N,H,W,3] turn by more than ``tol_deg`` near a pixel of ``mask``.

    The largest angle to a neighbour, then its largest value in the same window: a jump marks both
    sides of it.
    """
    batch, height, width, _ = normals.shape
    valid = torch.ones_like(normals[..., 0], dtype=torch.bool) if mask is None else mask
    unit = functional.normalize(normals, dim=-1, eps=1e-12)
    pad = kernel // 2
    padded = functional.pad(unit.permute(0, 3, 1, 2), (pad, pad, pad, pad), mode="replicate")
    seen = functional.pad(valid[:, None].float(), (pad, pad, pad, pad), mode="replicate") > 0.5
    largest = torch.zeros(batch, height, width, device=normals.device, dtype=normals.dtype)
    for dy in range(kernel):
        for dx in range(kernel):
            window = (..., slice(dy, dy + height), slice(dx, dx + width))
            cosine = (unit.permute(0, 3, 1, 2) * padded[window]).sum(1).clamp(-1, 1)
            angle = torch.where(seen[window][:, 0], torch.arccos(cosine), 0.0)
            largest = torch.maximum(largest, angle)
    spread = functional.max_pool2d(largest[:, None], kernel, 1, pad)[:, 0]
    return (spread > math.radians(tol_deg)) & valid


def depth_normal_edge(
    points: Tensor,
    depth: Tensor | None = None,
    *,
    rtol: float = 0.03,
    tol_deg: float = 5.0,
    kernel: int = 3,
    mask: Tensor | None = None,
) -> Tensor:
    """Pixels [N,H,W] that are both a depth edge and a normal edge: where a mesh is cut.

    ``depth`` defaults to the points' z. Slanted surfaces have depth edges but no normal edges;
    creases the other way round; only silhouettes have both.
    """
    z = points[..., 2] if depth is None else depth
    valid = torch.isfinite(points).all(-1) & torch.isfinite(z) & (z > 0)
    if mask is not None:
        valid = valid & mask
    normals, known = points_to_normals(points, valid)
    by_depth = depth_edge(
        torch.where(valid, z, torch.ones_like(z)), rtol=rtol, kernel=kernel, mask=valid
    )
    by_normal = normal_edge(normals, tol_deg=tol_deg, kernel=kernel, mask=known)
    return by_depth & valid & by_normal
