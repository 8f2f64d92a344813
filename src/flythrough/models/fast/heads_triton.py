"""Triton kernels for queries, keys and values in 8 bits: a pass that finds the largest value of
each head and a pass that divides. Their plain twin is ``eight_bit_attention.quantise_heads``."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flythrough.models.fast.fp8 import FP8, LARGEST, SMALLEST_SCALE

_ROWS = 64
_WARPS = 4
_TENSORS = 3
_COUNTS = ["asking", "tokens"]


@triton.jit
def _read(x, tokens, x_batch, x_row, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr):
    """Rows of one head and sample, float32, zero beyond them; and where they are inside."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    inside = (row[:, None] < tokens) & (column[None, :] < WIDTH)
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    place = x + sample * x_batch + row[:, None] * x_row + head * WIDTH + column[None, :]
    return tl.load(place, mask=inside, other=0.0).to(tl.float32), inside


@triton.jit
def _note_largest(read, largest, TENSOR: tl.constexpr):
    heads, samples = tl.num_programs(1), tl.num_programs(2)
    at = (TENSOR * samples + tl.program_id(2)) * heads + tl.program_id(1)
    tl.atomic_max(largest + at, tl.max(tl.max(tl.abs(read), 1), 0))


@triton.jit
def _write(  # noqa: PLR0913, PLR0917
    read,
    inside,
    largest,
    scales,
    made,
    tokens,
    TENSOR: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    LIMIT: tl.constexpr,
    LEAST: tl.constexpr,
):
    heads, samples = tl.num_programs(1), tl.num_programs(2)
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    at = (TENSOR * samples + sample) * heads + head
    scale = tl.maximum(tl.load(largest + at) / LIMIT, LEAST)
    small = tl.minimum(tl.maximum(read / scale, -LIMIT), LIMIT)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    place = ((sample * tokens + row[:, None]) * heads + head) * WIDTH + column[None, :]
    tl.store(made + place, small.to(made.dtype.element_ty), mask=inside)
    if tl.program_id(0) == 0:
        tl.store(scales + at, scale)


@triton.jit(do_not_specialize=_COUNTS)
def _largest_of(  # noqa: PLR0913, PLR0917
    q,
    k,
    v,
    largest,
    asking,
    tokens,
    q_batch,
    q_row,
    k_batch,
    k_row,
    v_batch,
    v_row,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
):
    read, _ = _read(q, asking, q_batch, q_row, WIDTH, BLOCK, ROWS)
    _note_largest(read, largest, 0)
    read, _ = _read(k, tokens, k_batch, k_row, WIDTH, BLOCK, ROWS)
    _note_largest(read, largest, 1)
    read, _ = _read(v, tokens, v_batch, v_row, WIDTH, BLOCK, ROWS)
    _note_largest(read, largest, 2)


@triton.jit(do_not_specialize=_COUNTS)
def _divide(  # noqa: PLR0913, PLR0917
    q,
    k,
    v,
    largest,
    scales,
    q8,
    k8,
    v8,
    asking,
    tokens,
    q_batch,
    q_row,
    k_batch,
    k_row,
    v_batch,
    v_row,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    LIMIT: tl.constexpr,
    LEAST: tl.constexpr,
):
    read, inside = _read(q, asking, q_batch, q_row, WIDTH, BLOCK, ROWS)
    _write(read, inside, largest, scales, q8, asking, 0, WIDTH, BLOCK, ROWS, LIMIT, LEAST)
    read, inside = _read(k, tokens, k_batch, k_row, WIDTH, BLOCK, ROWS)
    _write(read, inside, largest, scales, k8, tokens, 1, WIDTH, BLOCK, ROWS, LIMIT, LEAST)
    read, inside = _read(v, tokens, v_batch, v_row, WIDTH, BLOCK, ROWS)
    _write(read, inside, largest, scales, v8, tokens, 2, WIDTH, BLOCK, ROWS, LIMIT, LEAST)


def quantise_heads(
    q: Tensor, k: Tensor, v: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """``q`` [B,n,heads,d], ``k`` and ``v`` [B,N,heads,d] on a GPU, heads side by side in a row, as
    e4m3, and their scales [B,heads]."""
    batch, tokens, heads, width = k.shape
    for part in (q, k, v):
        assert part.stride(3) == 1
        assert part.stride(2) == width
    made = [torch.empty(part.shape, dtype=FP8, device=part.device) for part in (q, k, v)]
    largest = torch.zeros(_TENSORS, batch, heads, dtype=torch.float32, device=q.device)
    scales = torch.empty_like(largest)
    grid = (triton.cdiv(max(tokens, q.shape[1]), _ROWS), heads, batch)
    counts = (q.shape[1], tokens, *(p.stride(axis) for p in (q, k, v) for axis in (0, 1)))
    sizes = {"WIDTH": width, "BLOCK": triton.next_power_of_2(width), "ROWS": _ROWS}
    with torch.cuda.device_of(q):  # Triton takes the current one
        _largest_of[grid](q, k, v, largest, *counts, **sizes, num_warps=_WARPS)
        _divide[grid](
            q,
            k,
            v,
            largest,
            scales,
            *made,
            *counts,
            **sizes,
            LIMIT=LARGEST,
            LEAST=SMALLEST_SCALE,
            num_warps=_WARPS,
        )
    return (made[0], made[1], made[2]), (scales[0], scales[1], scales[2])
