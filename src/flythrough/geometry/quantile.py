"""Quantiles of any number of values."""

from __future__ import annotations

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
