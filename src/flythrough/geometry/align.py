"""Bringing one depth map to the scale of another (Warp-as-History specification 13.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_LIMITS = (0.1, 10.0)
_TRIM_FROM = 32


@dataclass(frozen=True, eq=False)
class DepthScale:
    """``scale`` (scalar tensor) that the current depth must be multiplied by, from ``count`` pixels;
    ``status`` tells whether it was clamped or nothing overlapped."""

    scale: Tensor
    status: Literal["ok", "clamped", "no_valid_overlap"]
    count: int


def depth_scale(
    reference: Tensor, reference_valid: Tensor, current: Tensor, current_valid: Tensor
) -> DepthScale:
    """Median ratio reference / current over common valid pixels, outer tenths trimmed.

    Maps are [H,W]; the reference is resized to the current size when they differ.
    """
    if reference.shape != current.shape:
        size = tuple(current.shape)
        reference = F.interpolate(
            reference[None, None], size, mode="bilinear", align_corners=False
        )[0, 0]
        reference_valid = F.interpolate(reference_valid[None, None].float(), size)[0, 0] > 0.5
    common = reference_valid & current_valid & (reference > 0) & (current > 0)
    common &= torch.isfinite(reference) & torch.isfinite(current)
    ratios = reference[common] / current[common]
    if len(ratios) == 0:
        return DepthScale(current.new_ones(()), "no_valid_overlap", 0)
    if len(ratios) >= _TRIM_FROM:
        low, high = _quantile(ratios, 0.1), _quantile(ratios, 0.9)
        ratios = ratios[(ratios >= low) & (ratios <= high)]
    median = _quantile(ratios, 0.5)
    scale = median.clamp(*_LIMITS)
    return DepthScale(scale, "ok" if bool(scale == median) else "clamped", len(ratios))


def _quantile(values: Tensor, share: float) -> Tensor:
    """Linear-interpolated quantile without torch.quantile's size limit."""
    ordered = values.sort().values
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)
