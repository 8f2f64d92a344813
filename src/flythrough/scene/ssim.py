"""Structural similarity of two pictures, differentiable (Wang et al. 2004)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Mean similarity (scalar) of pictures [3,H,W] in [0,1], over places where the 11 x 11 Gaussian
    window lies inside; smaller pictures are compared with the largest window that fits."""
    window = min(_WINDOW, *first.shape[-2:])
    offsets = torch.arange(window, device=first.device, dtype=first.dtype) - (window - 1) / 2
    bell = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    bell = bell / bell.sum()
    stack = torch.cat([first, second, first * first, second * second, first * second])[:, None]
    blurred = functional.conv2d(stack, bell.view(1, 1, -1, 1))
    blurred = functional.conv2d(blurred, bell.view(1, 1, 1, -1))
    mean_a, mean_b, aa, bb, ab = blurred[:, 0].chunk(5)
    above = (2 * mean_a * mean_b + _C1) * (2 * (ab - mean_a * mean_b) + _C2)
    below = (mean_a.square() + mean_b.square() + _C1) * (
        aa - mean_a.square() + bb - mean_b.square() + _C2
    )
    return (above / below).mean()
