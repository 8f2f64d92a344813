"""Drawing Gaussians with PyTorch alone: sorted, composited per pixel, with exact gradients.

First, without gradients, all (Gaussian, pixel) pairs are listed band by band, sorted by pixel and
depth, and cut where a Gaussian is faint or hidden. What remains, a few pairs a pixel, is composited
again with gradients. The list may be used for several steps of a fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.scene.splat_projection import FAINTEST, Ellipses, project
from flythrough.scene.splat_sums import Groups, composited, light_before, offsets, opacities
from flythrough.scene.splats import Splats

_HIDDEN = 1e-4
_PAIRS = 6_000_000
"""Pairs that are listed at a time."""


@dataclass(frozen=True, eq=False)
class SplatView:
    """What one camera sees: ``rgb`` [H,W,3] over black, ``alpha`` [H,W] in [0,1], ``depth`` [H,W]
    the mean z-depth of what is seen, 0 where nothing is."""

    rgb: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which Gaussians are drawn at which pixels, by pixel and then from near to far.

    Attributes:
        splat: [L] int64, index among the splats.
        pixel: [L] int64, row by row.
        size: (height, width).
    """

    splat: Tensor
    pixel: Tensor
    size: tuple[int, int]


def draw(
    splats: Splats,
    camera: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    pairs: Pairs | None = None,
) -> SplatView:
    """The splats seen by a camera [4,4] with intrinsics [3,3], pixel centres at half-integers.

    Args:
        pairs: an earlier list for this camera, when the splats have hardly moved since; by default
            a new one, which makes the picture and its gradients exact.
    """
    ellipses = project(splats, camera, matrix, size)
    if pairs is None:
        pairs = listed(ellipses, size)
    place = torch.full((len(splats),), -1, dtype=torch.int64, device=splats.means.device)
    place[ellipses.index] = torch.arange(len(ellipses.index), device=place.device)
    row = place[pairs.splat]
    pixel = pairs.pixel
    if bool((row < 0).any()):  # some left the picture since the list was made
        there = row >= 0
        row, pixel = row[there], pixel[there]
    return _composited(ellipses.table, row, pixel, size)


@torch.no_grad()
def listed(ellipses: Ellipses, size: tuple[int, int]) -> Pairs:
    """The pairs that can be seen."""
    order = ellipses.depth.argsort(stable=True)
    table, reach = ellipses.table[order], ellipses.reach[order]
    low = (table[:, :2] - reach - 0.5).ceil()
    high = (table[:, :2] + reach - 0.5).floor()
    most = table.new_tensor([size[1] - 1, size[0] - 1])
    low, high = low.clamp_min(0).long(), torch.minimum(high, most).long()
    splats, pixels = [], []
    for first, last in _bands(low, high, size[0]):
        top, bottom = low[:, 1].clamp_min(first), high[:, 1].clamp_max(last)
        which, pixel = _boxes(low[:, 0], high[:, 0], top, bottom, size[1])
        which, pixel = _visible(table, which, pixel, size[1])
        splats.append(ellipses.index[order[which]])
        pixels.append(pixel)
    return Pairs(torch.cat(splats), torch.cat(pixels), size)


def _bands(low: Tensor, high: Tensor, height: int) -> list[tuple[int, int]]:
    """First and last rows of bands with few enough pairs each."""
    width = (high[:, 0] - low[:, 0] + 1).clamp_min(0)
    width = width * (high[:, 1] >= low[:, 1])
    change = torch.zeros(height + 1, dtype=torch.int64, device=low.device)
    change.index_add_(0, low[:, 1].clamp(0, height), width)
    change.index_add_(0, (high[:, 1] + 1).clamp(0, height), -width)
    bands, first, total = [], 0, 0
    for row, count in enumerate(change.cumsum(0)[:height].tolist()):
        if total and total + count > _PAIRS:
            bands.append((first, row - 1))
            first, total = row, 0
        total += count
    return [*bands, (first, height - 1)]


def _boxes(
    left: Tensor, right: Tensor, top: Tensor, bottom: Tensor, width: int
) -> tuple[Tensor, Tensor]:
    """Every pixel of every box: index of the box and number of the pixel."""
    columns = (right - left + 1).clamp_min(0)
    rows = (bottom - top + 1).clamp_min(0)
    count = columns * rows
    which = torch.repeat_interleave(torch.arange(len(left), device=left.device), count)
    within = torch.arange(len(which), device=left.device)
    within = within - torch.repeat_interleave(count.cumsum(0) - count, count)
    across = columns[which]
    row = within // across
    return which, (top[which] + row) * width + left[which] + within - row * across


def _visible(table: Tensor, which: Tensor, pixel: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The pairs that are not faint, sorted by pixel (and depth, in which they came), up to the one
    that would leave no light: as in the common rasterisers that one is no longer drawn."""
    columns = table[:, :6].T.contiguous()
    chosen = [column[which] for column in columns]
    alpha = opacities(chosen, *offsets(chosen, pixel, width))[1]
    strong = (alpha >= FAINTEST).nonzero()[:, 0]
    which, pixel, alpha = which[strong], pixel[strong], alpha[strong]
    pixel, order = pixel.int().sort(stable=True)
    which, alpha, pixel = which[order], alpha[order], pixel.long()
    left = light_before(alpha, Groups.of(pixel)) * (1 - alpha)
    kept = (left > _HIDDEN).nonzero()[:, 0]
    return which[kept], pixel[kept]


def _composited(table: Tensor, row: Tensor, pixel: Tensor, size: tuple[int, int]) -> SplatView:
    sums = composited(table, row, pixel, size)
    depth, total = sums[0], sums[4]
    mean = depth / total.clamp_min(1e-10)
    return SplatView(sums[1:4].T.reshape(*size, 3), total.view(size), mean.view(size))
