"""Compositing sorted (Gaussian, pixel) pairs, with its derivative written out.

Autograd's own would take five times as long on a CPU. Per pixel, from near to far, a Gaussian of
opacity a behind light T adds a T of its values and leaves T (1 - a).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SOLID = 0.999


@dataclass(frozen=True, eq=False)
class Groups:
    """Runs of equal pixels in a sorted list of L: ``number`` [L] of the run that each is
    in, ``first`` and ``last`` indices of every run."""

    number: Tensor
    first: Tensor
    last: Tensor

    @classmethod
    def of(cls, pixel: Tensor) -> Groups:
        """The runs of ``pixel`` [L]."""
        starts = torch.ones_like(pixel, dtype=torch.bool)
        starts[1:] = pixel[1:] != pixel[:-1]
        first = starts.nonzero()[:, 0]
        end = first.new_tensor([len(pixel)])
        return cls(starts.cumsum(0) - 1, first, torch.cat([first[1:], end]) - 1)


def offsets(chosen: Sequence[Tensor], pixel: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """From the centres (``chosen`` columns 0 and 1) to the middles of the pixels [L]."""
    row = torch.div(pixel, width, rounding_mode="floor")
    x = (pixel - row * width).to(chosen[0].dtype) + 0.5 - chosen[0]
    return x, row.to(chosen[1].dtype) + 0.5 - chosen[1]


def opacities(chosen: Sequence[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The bell [L] at those offsets, and the opacity there, of columns as in ``Ellipses.table``."""
    bell = torch.exp(-(0.5 * (chosen[2] * x * x + chosen[4] * y * y) + chosen[3] * x * y))
    return bell, (chosen[5] * bell).clamp_max(_SOLID)


def light_before(alpha: Tensor, groups: Groups) -> Tensor:
    """Share of light [L] that passes all that lies before each pair at its pixel."""
    passed = torch.log1p(-alpha.double())
    before = passed.cumsum(0) - passed
    return (before - before[groups.first][groups.number]).exp().to(alpha.dtype)


def composited(table: Tensor, row: Tensor, pixel: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums [5,P] over the pairs of every pixel: depth, red, green, blue and opacity.

    Args:
        table: [M,10] as in ``Ellipses``.
        row: [L] int64 rows of the table; pixel: [L] int64, sorted, near before far.
    """
    found: Tensor = _Composited.apply(table, row, pixel, size)
    return found


class _Composited(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, table: Tensor, row: Tensor, pixel: Tensor, size: tuple[int, int]
    ) -> Tensor:
        # Columns, because everything is then done on contiguous numbers.
        chosen = [column[row] for column in table.T.contiguous()]
        groups = Groups.of(pixel)
        x, y = offsets(chosen, pixel, size[1])
        bell, alpha = opacities(chosen, x, y)
        light = light_before(alpha, groups)
        weight = alpha * light
        count = size[0] * size[1]
        sums = [pixel.bincount(value * weight, count) for value in chosen[6:]]
        sums.append(pixel.bincount(weight, count))
        ctx.save_for_backward(
            row, pixel, x, y, bell, alpha, light, *chosen[2:], groups.number, groups.last
        )
        ctx.rows = len(table)
        return torch.stack(sums)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        row, pixel, x, y, bell, alpha, light, *rest = ctx.saved_tensors
        a, b, c, _, *values, number, last = rest
        weight = alpha * light
        wanted = [part[pixel] for part in grad.contiguous()]
        by_weight = wanted[4].clone()
        for value, one in zip(values, wanted[:4], strict=True):
            by_weight += value * one
        gains = (weight * by_weight).double().cumsum(0)
        behind = (gains[last][number] - gains).to(alpha.dtype)
        by_alpha = light * by_weight - behind / (1 - alpha)
        by_alpha = torch.where(alpha < _SOLID, by_alpha, 0.0)
        by_power = -by_alpha * alpha
        columns = [
            -by_power * (a * x + b * y),
            -by_power * (b * x + c * y),
            by_power * 0.5 * x * x,
            by_power * x * y,
            by_power * 0.5 * y * y,
            by_alpha * bell,
            *(weight * one for one in wanted[:4]),
        ]
        found = torch.stack([row.bincount(column, ctx.rows) for column in columns], dim=1)
        return found, None, None, None
