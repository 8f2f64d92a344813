"""Structural similarity of pictures, differentiable (Wang et al. 2004)."""

from __future__ import annotations

import torch
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


class Ssim:
    """Mean similarity to one picture [3,H,W] in [0,1], over places where the 11 x 11 Gaussian
    window lies inside; smaller pictures are compared with the largest window that fits.

    The window is separable, so it is two products with banded matrices, which take a small part of
    the time that a convolution of single channels does, above all backwards. What depends on this
    picture alone is computed once.
    """

    def __init__(self, wanted: Tensor) -> None:
        window = min(_WINDOW, *wanted.shape[-2:])
        self._down = _bands(wanted.shape[-2], window).to(wanted)
        self._across = _bands(wanted.shape[-1], window).to(wanted).t().contiguous()
        self._wanted = wanted
        self._mean, square = self._blurred(torch.stack([wanted, wanted.square()]))
        self._spread = square - self._mean.square()

    def __call__(self, shown: Tensor) -> Tensor:
        """The similarity (scalar) of ``shown`` [3,H,W]."""
        return self.around(shown).mean()

    def around(self, shown: Tensor) -> Tensor:
        """The similarity of ``shown`` [3,H,W] at each place, every channel by itself: [3,H-10,W-10]
        of pictures that are not smaller than the window."""
        mean, square, cross = self._blurred(
            torch.stack([shown, shown.square(), shown * self._wanted])
        )
        both, mean_square = mean * self._mean, mean.square()
        above = (2 * both + _C1) * (2 * (cross - both) + _C2)
        below = (mean_square + self._mean.square() + _C1) * (
            square - mean_square + self._spread + _C2
        )
        return above / below

    def _blurred(self, stack: Tensor) -> Tensor:
        return self._down @ stack @ self._across


def _bands(length: int, window: int) -> Tensor:
    """[length - window + 1, length] float64: row i weighs the places of the window from i on."""
    offsets = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    bell = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    rows = torch.arange(length - window + 1)[:, None]
    bands = torch.zeros(len(rows), length, dtype=torch.float64)
    return bands.scatter_(1, rows + torch.arange(window), (bell / bell.sum()).expand(len(rows), -1))
