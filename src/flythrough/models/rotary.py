"""Rotary position tables over (time, y, x) and their application.

Tables hold one cosine and one sine per channel pair. Compressed history tokens take the mean of the
cosines and sines of the fine positions they cover (Helios, arXiv 2603.04379), which shortens the
vectors; as every channel depends on one axis only, that mean is taken per axis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flythrough.models.history_tokens import Kernel


class Tables(NamedTuple):
    """``cos`` and ``sin`` [B,N,head_dim / 2], float32."""

    cos: Tensor
    sin: Tensor


def axis_angles(positions: Tensor, dim: int, theta: float) -> Tensor:
    """Angles [..., dim / 2] of ``positions`` [...] for an axis that owns ``dim`` channels."""
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device)
    return positions.float().unsqueeze(-1) * (1.0 / theta ** (steps / dim))


def pooled(values: Tensor, size: int) -> Tensor:
    """Mean over groups of ``size`` along axis -2, the last entry repeated to fill a group."""
    if size == 1:
        return values
    missing = -values.shape[-2] % size
    if missing:
        values = torch.cat(
            [values, values[..., -1:, :].expand(*values.shape[:-2], missing, -1)], -2
        )
    return values.unflatten(-2, (-1, size)).mean(-2)


def grid_tables(
    frames: Tensor,
    size: tuple[int, int],
    dims: Kernel,
    theta: float,
    pool: Kernel = (1, 1, 1),
) -> Tables:
    """Tables of a token grid in the order (t, y, x).

    Args:
        frames: [B,T] frame indices.
        size: rows and columns of the fine grid.
        dims: channels of a head that belong to time, y and x.
        theta: base of the frequencies.
        pool: fine positions per token along time, y and x.
    """
    rows, columns = (torch.arange(n, device=frames.device) for n in size)
    axes = zip((frames, rows, columns), dims, pool, strict=True)
    angles = [(axis_angles(positions, dim, theta), step) for positions, dim, step in axes]
    return Tables(
        _over_grid(*(pooled(a.cos(), step) for a, step in angles)),
        _over_grid(*(pooled(a.sin(), step) for a, step in angles)),
    )


def _over_grid(time: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Join [B,T,a], [h,b] and [w,c] to [B,T*h*w,a+b+c]."""
    grid = (time.shape[0], time.shape[1], y.shape[0], x.shape[0])
    parts = (time[:, :, None, None], y[None, None, :, None], x[None, None, None])
    return torch.cat([p.expand(*grid, -1) for p in parts], dim=-1).flatten(1, 3)


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Turn adjacent channel pairs of ``x`` [B,N,heads,head_dim] float32 by the tables' angles.

    Outside a compiler one complex product is ten times faster than the same in real numbers.
    """
    if torch.compiler.is_compiling():
        return rotate_real(x, tables)
    turn = torch.complex(tables.cos, tables.sin).unsqueeze(-2)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2)


def rotate_real(x: Tensor, tables: Tables) -> Tensor:
    """``rotate`` in real arithmetic: the plain twin, and the form that compilers fuse."""
    cos, sin = tables.cos.unsqueeze(-2), tables.sin.unsqueeze(-2)
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
