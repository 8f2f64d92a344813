"""A depth map as a broken grid mesh, sampled into coloured points (specification 12.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.errors import GeometryError


class NoSurfaceError(GeometryError):
    """No mesh cell is left to render."""


@dataclass(frozen=True, eq=False)
class Samples:
    """M surface points: ``points`` [M,3] (world), ``colours`` [M,3] in [0,1] and ``source_xy`` [M,2],
    where in the source picture each came from (pixel indices, centres at integers)."""

    points: Tensor
    colours: Tensor
    source_xy: Tensor


def quad_samples(
    points: Tensor,
    colours: Tensor,
    valid: Tensor,
    per_axis: int,
    *,
    filled: Tensor | None = None,
    quantise: bool = False,
) -> Samples:
    """Points spread over every 2x2 cell whose corners are all valid.

    Args:
        points: [H,W,3]; colours: [H,W,3] in [0,1]; valid: [H,W] bool.
        per_axis: samples along each side of a cell, at (i + 0.5) / per_axis.
        filled: [H,W] bool; cells that mix filled (backdrop) and real corners are left out, so that
            no sheet spans the two.
        quantise: round colours down to 8 bit.

    Raises:
        NoSurfaceError: no cell is left.
    """
    whole = valid[:-1, :-1] & valid[:-1, 1:] & valid[1:, :-1] & valid[1:, 1:]
    if filled is not None:
        count = (
            filled[:-1, :-1].int() + filled[:-1, 1:].int() + filled[1:, :-1].int()
        ) + filled[1:, 1:].int()
        whole = whole & ((count == 0) | (count == 4))
    rows, columns = whole.nonzero(as_tuple=True)
    if len(rows) == 0:
        raise NoSurfaceError(
            "The depth map has no connected valid surface to render; give another photo, or depth "
            "with --geometry FILE."
        )
    offset = (torch.arange(per_axis, device=points.device, dtype=points.dtype) + 0.5) / per_axis
    v, u = (grid.reshape(-1, 1) for grid in torch.meshgrid(offset, offset, indexing="ij"))
    positions = _bilinear(points, rows, columns, u, v)
    shades = _bilinear(colours, rows, columns, u, v)
    if quantise:
        shades = torch.floor((shades * 255).clamp(0, 255)) / 255
    source = torch.stack((columns + u, rows + v), dim=-1)
    return Samples(positions.reshape(-1, 3), shades.reshape(-1, 3), source.reshape(-1, 2))


def _bilinear(grid: Tensor, rows: Tensor, columns: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Values [n*n, quads, 3] at offsets (u, v) inside the quads."""
    u, v = u[..., None], v[..., None]
    top = grid[rows, columns] * (1 - u) + grid[rows, columns + 1] * u
    bottom = grid[rows + 1, columns] * (1 - u) + grid[rows + 1, columns + 1] * u
    return top * (1 - v) + bottom * v
