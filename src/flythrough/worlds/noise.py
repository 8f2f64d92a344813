"""Periodic noise, cells and soft edges from which the textures are drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.seeds import generator

RESOLUTION = 256

_DRAWN = 512


def grid() -> tuple[Tensor, Tensor]:
    """Coordinates (x, y) of the drawing grid's sample centres, each [512,512] in [0,1)."""
    line = (torch.arange(_DRAWN, dtype=torch.float32) + 0.5) / _DRAWN
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def lattice(cells_x: int, cells_y: int, name: str) -> Tensor:
    """Random numbers in [0,1), [cells_y, cells_x], a function of ``name`` alone."""
    return torch.rand(cells_y, cells_x, generator=generator(7, "pattern", name))


def noise(cells_x: int, cells_y: int, name: str) -> Tensor:
    """Periodic value noise in about [0,1], [512,512], one random value a cell, bicubic between."""
    values = lattice(cells_x, cells_y, name)
    rows_in = torch.arange(-3, cells_y + 3) % cells_y
    columns_in = torch.arange(-3, cells_x + 3) % cells_x
    values = values[rows_in][:, columns_in][None, None]
    x, y = grid()
    columns = (x * cells_x + 3.0) / (cells_x + 6) * 2 - 1
    rows = (y * cells_y + 3.0) / (cells_y + 6) * 2 - 1
    at = torch.stack((columns, rows), -1)[None]
    return functional.grid_sample(values, at, "bicubic", "border", align_corners=False)[0, 0]


def fractal(cells: int, octaves: int, name: str, gain: float = 0.55, stretch: int = 1) -> Tensor:
    """Octaves of value noise added with falling weight and normalised to about [0,1]."""
    total = torch.zeros(_DRAWN, _DRAWN)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        size = cells * 2**octave
        total += weight * noise(size * stretch, size, f"{name}{octave}")
        norm += weight
        weight *= gain
    return ((total / norm - 0.5) * 1.5 + 0.5).clamp(0, 1)


def step(edge: float, value: Tensor, soft: float = 0.02) -> Tensor:
    """0 below ``edge``, 1 above, with a smooth ramp of half width ``soft``."""
    t = ((value - edge) / (2 * soft) + 0.5).clamp(0, 1)
    return t * t * (3 - 2 * t)


def cells_of(
    x: Tensor, y: Tensor, columns: int, rows: int, shift: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split the tile in columns x rows cells, odd rows moved by ``shift`` of a cell.

    Returns (column index, row index, position in the cell along x, along y); indices wrap.
    """
    row = (y * rows).floor()
    along = x * columns + shift * torch.remainder(row, 2)
    column = torch.remainder(along.floor(), columns)
    return column.long(), row.long().clamp(0, rows - 1), along - along.floor(), y * rows - row


def nearest_points(columns: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Periodic cells around one jittered point in each square of a columns x columns grid.

    Returns (nearest distance, second nearest, index of the nearest point); distances in tiles.
    After Worley 1996; the 3x3 neighbouring squares hold the nearest point.
    """
    jitter_x, jitter_y = (
        lattice(columns, columns, name + "x"),
        lattice(columns, columns, name + "y"),
    )
    x, y = grid()
    px, py = x * columns, y * columns
    column, row = px.floor(), py.floor()
    first = torch.full_like(x, 9.0)
    second = torch.full_like(x, 9.0)
    index = torch.zeros_like(x, dtype=torch.long)
    for oy in (-1, 0, 1):
        for ox in (-1, 0, 1):
            cell = ((row + oy) % columns * columns + (column + ox) % columns).long()
            dx = column + ox + jitter_x.view(-1)[cell] - px
            dy = row + oy + jitter_y.view(-1)[cell] - py
            distance = dx * dx + dy * dy
            nearer = distance < first
            second = torch.where(nearer, first, torch.minimum(second, distance))
            first = torch.where(nearer, distance, first)
            index = torch.where(nearer, cell, index)
    return first.sqrt() / columns, second.sqrt() / columns, index
