"""A depth map as a broken grid mesh, sampled into coloured points (Warp-as-History, appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flythrough.errors import GeometryError

NOTHING_TO_RENDER = (
    "The depth map has no connected valid surface to render; give another photo, or depth with "
    "--geometry FILE."
)


class NoSurfaceError(GeometryError):
    """No mesh cell is left to render."""


@dataclass(frozen=True, eq=False)
class Samples:
    """M surface points.

    Attributes:
        points: [M,3] in the world frame.
        colours: [M,3] in [0,1].
        source_xy: [M,2] where in its source picture each point came from, as pixel indices (x, y)
            with centres at integers.
        source: [M] int64, which picture that is.
    """

    points: Tensor
    colours: Tensor
    source_xy: Tensor
    source: Tensor

    def __len__(self) -> int:
        return len(self.points)


def joined(parts: Sequence[Samples]) -> Samples:
    """Several meshes' samples in order, ``source`` counting the parts."""
    return Samples(
        points=torch.cat([p.points for p in parts]),
        colours=torch.cat([p.colours for p in parts]),
        source_xy=torch.cat([p.source_xy for p in parts]),
        source=torch.cat([torch.full_like(p.source, i) for i, p in enumerate(parts)]),
    )


@dataclass(frozen=True, eq=False)
class GridMesh:
    """A depth map's mesh before it is sampled: bilinear 2x2 cells between neighbouring pixels.

    Attributes:
        points: [H,W,3] in the world frame; their dtype is that of all arithmetic.
        colours: [H,W,3] in [0,1].
        whole: [H-1,W-1] bool, the cells that are drawn.
    """

    points: Tensor
    colours: Tensor
    whole: Tensor

    @cached_property
    def has_cells(self) -> bool:
        """Whether anything is drawn; asked of the device once."""
        return bool(self.whole.any())

    def sampled(self, per_axis: int, *, quantise: bool = False) -> Samples:
        """Points spread over every cell that is drawn, bilinear between its corners.

        The order is fixed: offsets inside the cell outermost (row by row), then cells row by row.

        Args:
            per_axis: samples along each side of a cell, at (i + 0.5) / per_axis.
            quantise: take colours as 8-bit and truncate the samples to 8 bit.

        Raises:
            NoSurfaceError: no cell is left.
        """
        points, colours = self.points, self.colours
        rows, columns = self.whole.nonzero(as_tuple=True)
        if len(rows) == 0:
            raise NoSurfaceError(NOTHING_TO_RENDER)
        dtype = points.dtype
        offset = (torch.arange(per_axis, device=points.device, dtype=dtype) + 0.5) / per_axis
        v, u = (grid.reshape(-1, 1) for grid in torch.meshgrid(offset, offset, indexing="ij"))
        positions = _bilinear(points, rows, columns, u, v).reshape(-1, 3)
        if quantise:
            shades = _bilinear((colours * 255).round().to(dtype), rows, columns, u, v)
            shades = shades.clamp(0, 255).floor() / 255
        else:
            shades = _bilinear(colours.to(dtype), rows, columns, u, v)
        source_xy = torch.stack((columns + u, rows + v), dim=-1).reshape(-1, 2)
        source = torch.zeros(len(positions), dtype=torch.int64, device=points.device)
        return Samples(positions, shades.reshape(-1, 3), source_xy, source)


def grid_mesh(
    points: Tensor, colours: Tensor, valid: Tensor, *, filled: Tensor | None = None
) -> GridMesh:
    """The mesh of a depth map; a cell is drawn if all of its corners are valid.

    Args:
        points: [H,W,3]; colours: [H,W,3] in [0,1].
        valid: [H,W] bool.
        filled: [H,W] bool; cells that mix filled (backdrop) and real corners are left out, so that
            no sheet spans the two.
    """
    whole = _corners(valid).all(0)
    if filled is not None:
        corners = _corners(filled)
        whole = whole & (corners.all(0) | ~corners.any(0))
    return GridMesh(points, colours, whole)


def quad_samples(
    points: Tensor,
    colours: Tensor,
    valid: Tensor,
    per_axis: int,
    *,
    filled: Tensor | None = None,
    quantise: bool = False,
) -> Samples:
    """:func:`grid_mesh`, sampled.

    Raises:
        NoSurfaceError: no cell is left.
    """
    return grid_mesh(points, colours, valid, filled=filled).sampled(per_axis, quantise=quantise)


def _corners(mask: Tensor) -> Tensor:
    """The four corners of every 2x2 cell: [4,H-1,W-1]."""
    return torch.stack((mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]))


def _bilinear(grid: Tensor, rows: Tensor, columns: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Values [n*n, cells, 3] of a grid [H,W,3] at offsets u, v [n*n, 1] inside the cells."""
    u, v = u[..., None], v[..., None]
    top = grid[rows, columns] * (1 - u) + grid[rows, columns + 1] * u
    bottom = grid[rows + 1, columns] * (1 - u) + grid[rows + 1, columns + 1] * u
    return top * (1 - v) + bottom * v
