"""Small holes closed from the source pictures, and the colour of what was never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.scene.raster import Splat


def close_small_holes(
    drawn: Splat,
    pictures: Sequence[Tensor],
    *,
    radius: int,
    min_neighbors: int,
    reference: bool = False,
) -> Splat:
    """Give unseen pixels among enough seen neighbours the colour of the source between them.

    The colour is read in the source picture at the mean source position of the seen neighbours,
    which keeps texture sharp where averaging colours would not. When neighbours stem from several
    pictures, those of the most frequent one (the newest among equals) count. Depth becomes the mean
    of the same neighbours. One pass.

    Args:
        drawn: what was splatted; its ``source`` counts ``pictures``.
        pictures: each [3,H',W'] in [0,1].
        radius: the window is (2 radius + 1) squared; outside the frame nothing is seen.
        min_neighbors: seen pixels that the window must hold, of any picture.
        reference: published behaviour: positions are averaged over all neighbours and looked up in
            the newest picture wherever they came from, and colours are rounded to 8 bit.
    """
    count = summed(drawn.seen[:, None].float(), radius)[:, 0]
    fillable = ~drawn.seen & (count >= min_neighbors)
    if reference or len(pictures) == 1:
        found = _between(drawn, drawn.seen, pictures[-1], radius, quantise=reference)
        return _filled(drawn, fillable & found.seen, found)
    best = replace(drawn, seen=torch.zeros_like(drawn.seen))
    most = torch.zeros_like(count)
    for number, picture in enumerate(pictures):
        mine = drawn.seen & (drawn.source == number)
        share = summed(mine[:, None].float(), radius)[:, 0]
        found = _between(drawn, mine, picture, radius)
        better = found.seen & (share >= most) & (share > 0)
        found = replace(found, source=torch.full_like(drawn.source, number))
        best, most = _filled(best, better, found), torch.where(better, share, most)
    return _filled(drawn, fillable & best.seen, best)


def _between(
    drawn: Splat, among: Tensor, picture: Tensor, radius: int, *, quantise: bool = False
) -> Splat:
    """What ``picture`` shows at the mean source position of the window's pixels in ``among``.

    ``seen`` [T,H,W] tells where that position lies inside the picture.
    """
    # In float32 whatever the splat's dtype: pixel positions need no more.
    weight = among[:, None].float()
    count = summed(weight, radius).clamp_min(1)
    xy = summed(drawn.source_xy.float().permute(0, 3, 1, 2) * weight, radius) / count
    depth = summed(drawn.depth.float()[:, None] * weight, radius) / count
    xy = xy.permute(0, 2, 3, 1)
    height, width = picture.shape[-2:]
    # Made on the device: a tensor of numbers from the host would wait for the copy.
    limits = torch.cat([xy.new_full((1,), width - 1), xy.new_full((1,), height - 1)])
    grid = xy / limits.clamp_min(1) * 2 - 1
    source = picture[None].float().expand(len(grid), -1, -1, -1)
    colours = functional.grid_sample(source, grid, padding_mode="border", align_corners=True)
    if quantise:
        colours = (colours * 255 + 0.5).floor().to(drawn.rgb) / 255
    return Splat(
        rgb=colours.permute(0, 2, 3, 1).to(drawn.rgb),
        depth=depth[:, 0].to(drawn.depth),
        seen=((xy >= 0) & (xy <= limits)).all(-1),
        source_xy=xy.to(drawn.source_xy),
        source=drawn.source,
    )


def _filled(under: Splat, where: Tensor, over: Splat) -> Splat:
    return Splat(
        rgb=torch.where(where[..., None], over.rgb, under.rgb),
        depth=torch.where(where, over.depth, under.depth),
        seen=under.seen | where,
        source_xy=torch.where(where[..., None], over.source_xy, under.source_xy),
        source=torch.where(where, over.source, under.source),
    )


def summed(values: Tensor, radius: int) -> Tensor:
    """Sums over the (2 radius + 1) squared window around each pixel, zero outside: [...,C,H,W]."""
    return functional.avg_pool2d(values, 2 * radius + 1, 1, radius, divisor_override=1)


def fill_colour(picture: Tensor, mode: Literal["mean_first_frame", "black"]) -> Tensor:
    """[3] colour for unseen pixels: the mean of a picture [3,H,W] rounded to 8 bit, or black."""
    if mode == "black":
        return picture.new_zeros(3)
    return (picture.double().flatten(1).mean(1) * 255).round().to(picture) / 255
