"""Small holes, the far backdrop, and the colour of what was never seen (specification 12.1, 12.6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from flythrough.scene.raster import Splat

_MIN_AREA = 1024
_RING = 17
_MIN_RING = 128
_RING_QUANTILE = 0.95
_ALL_QUANTILE = 0.98


def close_small_holes(drawn: Splat, source: Tensor, radius: int, min_neighbors: int) -> Splat:
    """Give unseen pixels among enough seen neighbours the colour of the source between them.

    Args:
        source: [3,H',W'] picture the samples came from, in [0,1].
        radius: the window is (2 radius + 1) squared.

    The colour is read in the source at the mean source position of the seen neighbours, which keeps
    texture sharp where averaging colours would not. One pass; depth becomes the neighbours' mean.
    """
    window = 2 * radius + 1
    seen = drawn.seen[:, None].to(source.dtype)

    def summed(values: Tensor) -> Tensor:
        return F.avg_pool2d(values, window, 1, radius, divisor_override=1)

    count = summed(seen)
    weight = count.clamp_min(1)
    xy = summed(drawn.source_xy.permute(0, 3, 1, 2) * seen) / weight
    depth = summed(drawn.depth[:, None] * seen) / weight
    height, width = source.shape[-2:]
    inside = (xy[:, 0] >= 0) & (xy[:, 0] <= width - 1) & (xy[:, 1] >= 0) & (xy[:, 1] <= height - 1)
    fillable = ~drawn.seen & (count[:, 0] >= min_neighbors) & inside
    limits = xy.new_tensor([max(1, width - 1), max(1, height - 1)])
    grid = xy.permute(0, 2, 3, 1) / limits * 2 - 1
    colours = F.grid_sample(
        source[None].expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=True
    ).permute(0, 2, 3, 1)
    return Splat(
        rgb=torch.where(fillable[..., None], colours, drawn.rgb),
        depth=torch.where(fillable, depth[:, 0], drawn.depth),
        seen=drawn.seen | fillable,
        source_xy=torch.where(fillable[..., None], xy.permute(0, 2, 3, 1), drawn.source_xy),
    )


@dataclass(frozen=True, eq=False)
class Backdrop:
    """``depth`` [H,W] with far values put in where ``filled`` [H,W]."""

    depth: Tensor
    filled: Tensor


def far_backdrop(depth: Tensor, valid: Tensor, min_area: int = _MIN_AREA) -> Backdrop:
    """Invalid regions that touch the upper border (sky) get one far depth each.

    The depth is the larger of a high quantile of the region's surroundings and one of all valid
    depth; regions smaller than ``min_area`` pixels are left alone.
    """
    filled = torch.zeros_like(valid)
    result, known = depth.clone(), valid.clone()
    if not bool(valid.any()):
        return Backdrop(result, filled)
    far = _quantile(depth[valid], _ALL_QUANTILE)
    labels = _regions_at_top(~valid)
    for label in labels.unique().tolist():
        region = labels == label
        if label == 0 or int(region.sum()) < min_area:
            continue
        ring = F.max_pool2d(region[None, None].float(), _RING, 1, _RING // 2)[0, 0] > 0
        around = result[ring & known & ~region]
        near = _quantile(around, _RING_QUANTILE) if len(around) >= _MIN_RING else far
        result = torch.where(region, torch.maximum(near, far), result)
        filled, known = filled | region, known | region
    return Backdrop(result, filled)


def _regions_at_top(invalid: Tensor) -> Tensor:
    """Labels [H,W] of 8-connected regions of ``invalid`` that touch row 0; 0 elsewhere."""
    width = invalid.shape[1]
    labels = torch.zeros(invalid.shape, device=invalid.device)
    labels[0] = torch.arange(1, width + 1, device=invalid.device) * invalid[0]
    while True:
        grown = F.max_pool2d(labels[None, None], 3, 1, 1)[0, 0] * invalid
        if torch.equal(grown, labels):
            return labels
        labels = grown


def _quantile(values: Tensor, share: float) -> Tensor:
    ordered = values.sort().values
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def fill_colour(source: Tensor, mode: str) -> Tensor:
    """[3] colour for unseen pixels: the rounded mean of the source picture, or black."""
    if mode == "black":
        return source.new_zeros(3)
    return (source.flatten(1).mean(1) * 255).round() / 255
