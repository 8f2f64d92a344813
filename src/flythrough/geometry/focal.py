"""Focal lengths of several keyframes held together (Warp-as-History, keyframe memory)."""

from __future__ import annotations

import torch
from torch import Tensor

_RATIO = (0.65, 1.35)
_ALPHA = 0.5
_LEAST = 1e-6


def smoothed_focals(intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Estimated intrinsics [N,3,3] as those of one camera that zooms only slowly.

    Each focal length is kept within 0.65 to 1.35 times the first frame's and moves half way from
    the last smoothed value to its own; the principal point goes to the middle. Negative estimates
    count by their size.

    Args:
        intrinsics: in pixels of ``size``, oldest first, N >= 1.
        size: (height, width).

    Returns:
        [N,3,3] of the same dtype.
    """
    focals = intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2].double().abs()
    first = focals[0].clamp_min(_LEAST)
    kept = focals.clamp(first * _RATIO[0], first * _RATIO[1])
    smooth = [kept[0]]
    for focal in kept[1:]:
        smooth.append(_ALPHA * focal + (1 - _ALPHA) * smooth[-1])
    result = torch.zeros_like(intrinsics)
    result[:, 0, 0], result[:, 1, 1] = torch.stack(smooth).to(intrinsics).unbind(-1)
    result[:, 0, 2], result[:, 1, 2], result[:, 2, 2] = size[1] / 2, size[0] / 2, 1
    return result
