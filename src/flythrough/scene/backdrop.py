"""Sky: large invalid regions at the upper border become a far backdrop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.geometry.quantile import quantile

_RING = 17
_MIN_RING = 128
_RING_QUANTILE = 0.95
_ALL_QUANTILE = 0.98
_STEPS_A_CHECK = 16


@dataclass(frozen=True, eq=False)
class Backdrop:
    """``depth`` [H,W] with far values put in where ``filled`` [H,W] bool."""

    depth: Tensor
    filled: Tensor


def far_backdrop(
    depth: Tensor, valid: Tensor, *, min_area: int = 1024, lowest: float = 1.0
) -> Backdrop:
    """Give every large invalid region that touches the upper border one far depth.

    The depth is the larger of a high quantile of the valid depth around the region (17-pixel
    dilation, when it holds at least 128 pixels) and a high quantile of all valid depth. A region
    filled earlier counts as valid surroundings of a later one, from left to right. With fewer than
    128 valid pixels nothing is known about the distance, and nothing is filled.

    Args:
        depth: [H,W]; valid: [H,W] bool.
        min_area: pixels that a region needs, whole and after cutting.
        lowest: rows below this share of the height are cut off a region.
    """
    height = depth.shape[0]
    filled = torch.zeros_like(valid)
    result, known = depth.clone(), valid.clone()
    if int(valid.sum()) < _MIN_RING:
        return Backdrop(result, filled)
    rows = torch.arange(height, device=depth.device)[:, None] <= min(
        height - 1, round(height * lowest)
    )
    far = quantile(depth[valid], _ALL_QUANTILE)
    labels = regions_at_top(~valid)
    for label in (labels.flatten().bincount()[1:] >= min_area).nonzero()[:, 0].tolist():
        region = labels == label + 1
        cut = region & rows
        if int(cut.sum()) < min_area:
            continue
        ring = functional.max_pool2d(cut[None, None].float(), _RING, 1, _RING // 2)[0, 0] > 0
        around = result[ring & known & ~region]
        near = quantile(around, _RING_QUANTILE) if len(around) >= _MIN_RING else far
        result = torch.where(cut, torch.maximum(near, far), result)
        filled, known = filled | cut, known | cut
    return Backdrop(result, filled)


def regions_at_top(invalid: Tensor) -> Tensor:
    """Labels [H,W] int64 of the 8-connected regions of ``invalid`` that touch row 0, 0 elsewhere.

    A region's label is 1 + the column of its leftmost pixel in row 0.
    """
    width = invalid.shape[1]
    # Larger means further left here, so that max-pooling spreads the leftmost column.
    start = torch.zeros(invalid.shape, device=invalid.device)
    start[0] = torch.arange(width, 0, -1, device=invalid.device) * invalid[0]
    spread = start[None, None]
    while True:
        before = spread
        for _ in range(_STEPS_A_CHECK):
            spread = functional.max_pool2d(spread, 3, 1, 1) * invalid
        if torch.equal(before, spread):
            break
    found = spread[0, 0].long()
    return torch.where(found > 0, width + 1 - found, 0)
