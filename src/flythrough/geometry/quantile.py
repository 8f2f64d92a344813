"""Quantiles of any number of values."""

from __future__ import annotations

import torch
from torch import Tensor


def quantile(values: Tensor, share: float) -> Tensor:
    """Linearly interpolated quantile of values [M], M >= 1, as a scalar of their dtype.

    ``torch.quantile`` refuses more than 16 million values; a median is ``share`` = 0.5 (the mean of
    the middle two for even M, unlike ``Tensor.median``).
    """
    ordered = values.sort().values
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def masked_quantile(values: Tensor, among: Tensor, share: float) -> Tensor:
    """``quantile(values[among], share)`` of finite values, to the bit, without asking the device
    how many they are; infinite where ``among`` (bool, shaped as ``values``) holds nowhere."""
    ordered = torch.where(among, values, torch.inf).flatten().sort().values
    last = (among.sum() - 1).clamp_min(0)
    at = share * last.double()
    low = at.floor().long()
    high = torch.minimum(low + 1, last)
    # An index that is a tensor of no axes would be read by the host.
    below, above = ordered.gather(0, torch.stack((low, high))).unbind(0)
    between = below + (above - below) * (at - low).to(values.dtype)
    return torch.where(low == high, below, between)
