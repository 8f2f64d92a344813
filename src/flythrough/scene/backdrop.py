"""Sky: large invalid regions at the upper border become a far backdrop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.geometry.quantile import masked_quantile

_RING = 17
_MIN_RING = 128
_RING_QUANTILE = 0.95
_ALL_QUANTILE = 0.98
_STEPS_A_CHECK = 4


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
    enough, open_top = torch.stack([valid.sum() >= _MIN_RING, ~valid[0].all()]).tolist()
    if not (enough and open_top):
        return Backdrop(result, filled)
    rows = torch.arange(height, device=depth.device)[:, None] <= min(
        height - 1, round(height * lowest)
    )
    far = masked_quantile(depth, valid, _ALL_QUANTILE)
    labels = regions_at_top(~valid)
    large = torch.stack([_areas(labels), _areas(labels * rows)]).amin(0) >= min_area
    for label in large.nonzero()[:, 0].tolist():
        region = labels == label + 1
        cut = region & rows
        ring = functional.max_pool2d(cut[None, None].float(), _RING, 1, _RING // 2)[0, 0] > 0
        around = ring & known & ~region
        near = masked_quantile(result, around, _RING_QUANTILE)
        near = torch.where(around.sum() >= _MIN_RING, near, far)
        result = torch.where(cut, torch.maximum(near, far), result)
        filled, known = filled | cut, known | cut
    return Backdrop(result, filled)


def _areas(labels: Tensor) -> Tensor:
    """Pixels of each label 1 .. W: int64 [W]."""
    counts = labels.new_zeros(labels.shape[1] + 1)
    flat = labels.flatten()
    return counts.scatter_add(0, flat, torch.ones_like(flat))[1:]


def regions_at_top(invalid: Tensor) -> Tensor:
    """Labels [H,W] int64 of the 8-connected regions of ``invalid`` that touch row 0, 0 elsewhere.

    A region's label is 1 + the column of its leftmost pixel in row 0.
    """
    width = invalid.shape[1]
    # Larger means further left here, so that the largest spreads the leftmost column.
    start = torch.zeros(invalid.shape, dtype=torch.int64, device=invalid.device)
    start[0] = torch.arange(width, 0, -1, device=invalid.device) * invalid[0]
    down, across = _runs(invalid.t()), _runs(invalid)
    spread = start
    while True:
        before = spread
        for _ in range(_STEPS_A_CHECK):
            # Along whole runs at once, then one pixel aslant.
            spread = _largest_of(spread.t().contiguous(), down).t()
            spread = _largest_of(spread.contiguous(), across)
            near = functional.max_pool2d(spread[None, None].float(), 3, 1, 1)[0, 0].long()
            spread = near * invalid
        if torch.equal(before, spread):
            break
    return torch.where(spread > 0, width + 1 - spread, 0)


def _runs(inside: Tensor) -> Tensor:
    """A number for every unbroken run of a row's pixels in ``inside`` [H,W], and one for each pixel
    outside: int64 [H*W]."""
    begins = torch.ones_like(inside)
    begins[:, 1:] = ~(inside[:, 1:] & inside[:, :-1])
    return begins.flatten().cumsum(0) - 1


def _largest_of(values: Tensor, runs: Tensor) -> Tensor:
    """Each pixel of ``values`` [H,W] takes the largest value of its run."""
    flat = values.flatten()
    most = torch.zeros_like(flat).scatter_reduce(0, runs, flat, "amax")
    return most[runs].view(values.shape)
