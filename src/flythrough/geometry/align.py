"""Bringing one depth map to the scale of another (Warp-as-History, keyframe scale alignment)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import GeometryError
from flythrough.geometry.quantile import masked_quantile

Status = Literal["ok", "clamped", "no_valid_overlap"]

_LIMITS = (0.1, 10.0)
_TRIM_FROM = 32
_TRIM = 0.1


@dataclass(frozen=True, eq=False)
class DepthScale:
    """The factor between two depth maps of one view.

    Its values stay on the device; ``status`` and ``count`` wait for them.

    Attributes:
        scale: scalar tensor; current depth times ``scale`` agrees with the reference.
        counted: scalar int64 tensor, pixels that the median was taken over.
        outside: scalar bool tensor, whether the ratio lay outside [0.1, 10].
    """

    scale: Tensor
    counted: Tensor
    outside: Tensor

    @property
    def facts(self) -> Tensor:
        """``scale``, ``counted`` and ``outside`` as float64 [3], for :func:`status_of`."""
        return torch.stack([self.scale.double(), self.counted.double(), self.outside.double()])

    @property
    def count(self) -> int:
        """Pixels that the median was taken over."""
        return int(self.counted)

    @property
    def status(self) -> Status:
        """``clamped`` when the ratio lay outside [0.1, 10], ``no_valid_overlap`` (and scale 1) when
        no pixel was valid in both."""
        return status_of(self.facts.tolist())


def status_of(facts: Sequence[float]) -> Status:
    """The status that :attr:`DepthScale.facts` stand for."""
    _, count, outside = facts
    return "no_valid_overlap" if count == 0 else "clamped" if outside else "ok"


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
    ratios = torch.where(common, reference.double() / current.double(), torch.inf)
    low, high = (masked_quantile(ratios, common, share) for share in (_TRIM, 1 - _TRIM))
    few = common.sum() < _TRIM_FROM
    kept = common & (few | ((ratios >= low) & (ratios <= high)))
    counted = kept.sum()
    median = torch.where(counted > 0, masked_quantile(ratios, kept, 0.5), 1.0)
    scale = median.clamp(*_LIMITS)
    return DepthScale(scale.to(current.dtype), counted, scale != median)
