"""Bringing one depth map to the scale of another (Warp-as-History, keyframe scale alignment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import GeometryError
from flythrough.geometry.quantile import quantile

_LIMITS = (0.1, 10.0)
_TRIM_FROM = 32
_TRIM = 0.1


@dataclass(frozen=True, eq=False)
class DepthScale:
    """The factor between two depth maps of one view.

    Attributes:
        scale: scalar tensor; current depth times ``scale`` agrees with the reference.
        status: ``clamped`` when the ratio lay outside [0.1, 10], ``no_valid_overlap`` (and scale 1)
            when no pixel was valid in both.
        count: pixels that the median was taken over.
    """

    scale: Tensor
    status: Literal["ok", "clamped", "no_valid_overlap"]
    count: int


def depth_scale(
    reference: Tensor, reference_valid: Tensor, current: Tensor, current_valid: Tensor
) -> DepthScale:
    """Median of reference / current over the pixels valid in both.

    With 32 or more such pixels the outer tenths of the ratios are left out first.

    Args:
        reference: [H',W'] z-depth; resized (bilinear, its mask nearest) when H' x W' is not H x W.
        reference_valid: [H',W'] bool.
        current: [H,W] z-depth of the same view; current_valid: [H,W] bool.

    Raises:
        GeometryError: a map and its mask differ in shape.
    """
    for depth, valid in ((reference, reference_valid), (current, current_valid)):
        if depth.ndim != 2 or depth.shape != valid.shape:
            raise GeometryError(
                f"A depth map {tuple(depth.shape)} was given with a mask {tuple(valid.shape)}; "
                "give both as [H, W]."
            )
    if reference.shape != current.shape:
        size = (current.shape[0], current.shape[1])
        reference = functional.interpolate(reference[None, None], size, mode="bilinear")[0, 0]
        reference_valid = (
            functional.interpolate(reference_valid[None, None].float(), size)[0, 0] > 0.5
        )
    common = reference_valid & current_valid & (reference > 0) & (current > 0)
    common = common & torch.isfinite(reference) & torch.isfinite(current)
    ratios = reference[common].double() / current[common].double()
    if len(ratios) == 0:
        return DepthScale(current.new_ones(()), "no_valid_overlap", 0)
    if len(ratios) >= _TRIM_FROM:
        low, high = quantile(ratios, _TRIM), quantile(ratios, 1 - _TRIM)
        ratios = ratios[(ratios >= low) & (ratios <= high)]
    median = quantile(ratios, 0.5)
    scale = median.clamp(*_LIMITS)
    return DepthScale(
        scale.to(current.dtype), "ok" if bool(scale == median) else "clamped", len(ratios)
    )
