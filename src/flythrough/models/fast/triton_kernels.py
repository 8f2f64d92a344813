"""Triton kernels: one program a token, everything of the token in registers, float32 inside.

Their plain twins are the functions of ``elementwise.py``.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from flythrough.models.fast.activations import Activations
from flythrough.models.fast.fp8 import FP8, LARGEST
from flythrough.models.rotary import Tables

# Strides between samples are counted in tokens: multiples of the constant width then tell the
# compiler that rows are aligned, and it loads 16 bytes at once.
_COUNTS = ["past", "tokens", "x_batch", "update_batch", "out_batch", "scale_batch"]


@triton.jit(do_not_specialize=_COUNTS)
def _residual_norm(  # noqa: PLR0913, PLR0917
    x,
    update,
    gate,
    gain,
    shift,
    values,
    quantised,
    scales,
    past,
    tokens,
    x_batch,
    update_batch,
    out_batch,
    scale_batch,
    eps,
    WIDTH: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_GATE: tl.constexpr,
    HAS_VALUES: tl.constexpr,
    HAS_FP8: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = (tl.program_id(0) // tokens).to(tl.int64)
    token = (tl.program_id(0) % tokens).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    row = (sample * 2 + (token >= past)) * WIDTH + columns
    place = x + (sample * x_batch + token) * WIDTH + columns
    wide = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        where = update + (sample * update_batch + token) * WIDTH + columns
        added = tl.load(where, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            added = added * tl.load(gate + row, mask=inside, other=0.0)
        rounded = (wide + added).to(x.dtype.element_ty)
        tl.store(place, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    mean = tl.sum(wide, 0) / WIDTH
    centred = tl.where(inside, wide - mean, 0.0)
    deviation = tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
    normed = centred * deviation * tl.load(gain + row, mask=inside, other=0.0)
    normed = normed + tl.load(shift + row, mask=inside, other=0.0)
    rounded = normed.to(x.dtype.element_ty)
    target = (sample * out_batch + token) * WIDTH + columns
    if HAS_VALUES:
        tl.store(values + target, rounded, mask=inside)
    if HAS_FP8:
        read = rounded.to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(read), 0) / LIMIT, 1e-12)
        small = tl.minimum(tl.maximum(read / scale, -LIMIT), LIMIT)
        tl.store(quantised + target, small.to(quantised.dtype.element_ty), mask=inside)
        tl.store(scales + sample * scale_batch + token, scale)


@triton.jit(do_not_specialize=["tokens", "x_batch", "table_batch"])
def _norm_rotate(  # noqa: PLR0913, PLR0917
    x,
    weight,
    cos,
    sin,
    tokens,
    x_batch,
    x_row,
    table_batch,
    eps,
    WIDTH: tl.constexpr,
    PAIRS: tl.constexpr,
    ROTATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    sample = (tl.program_id(0) // tokens).to(tl.int64)
    token = (tl.program_id(0) % tokens).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    place = x + (sample * x_batch + token) * x_row + columns
    wide = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    wide = wide * tl.rsqrt(tl.sum(wide * wide, 0) / WIDTH + eps)
    wide = wide * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if ROTATE:
        even, odd = tl.split(tl.reshape(wide, (BLOCK // 2, 2)))
        angle = tl.arange(0, BLOCK // 2) % PAIRS
        at = (sample * table_batch + token) * PAIRS + angle
        c, s = tl.load(cos + at), tl.load(sin + at)
        turned = tl.join(even * c - odd * s, even * s + odd * c)
        wide = tl.reshape(turned, (BLOCK,))
    tl.store(place, wide.to(x.dtype.element_ty), mask=inside)


@triton.jit
def _quantise(
    x,
    quantised,
    scales,
    WIDTH: tl.constexpr,
    GELU: tl.constexpr,
    LIMIT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    read = tl.load(x + token * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        inner = 1.5957691216057308 * (read + 0.044715 * read * read * read)
        read = read * tl.sigmoid(inner)  # the same as the tanh form
    scale = tl.maximum(tl.max(tl.abs(read), 0) / LIMIT, 1e-12)
    small = tl.minimum(tl.maximum(read / scale, -LIMIT), LIMIT)
    tl.store(quantised + token * WIDTH + columns, small.to(quantised.dtype.element_ty), mask=inside)
    tl.store(scales + token, scale)


class TritonElementwise:
    """The kernels behind the interface of ``elementwise.Elementwise``."""

    def residual_norm(
        self,
        x: Tensor,
        update: Tensor | None,
        gate: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        past: int,
        eps: float,
        out: Activations,
    ) -> None:
        batch, tokens, width = x.shape
        buffer = out.values if out.values is not None else out.quantised
        assert buffer is not None
        assert x.stride(1) == width == buffer.stride(1)
        assert update is None or update.stride(1) == width
        assert all(r is None or r.is_contiguous() for r in (gate, gain, shift))
        block = triton.next_power_of_2(width)
        with torch.cuda.device_of(x):  # Triton takes the current one
            _residual_norm[(batch * tokens,)](
                x,
                x if update is None else update,
                gain if gate is None else gate,
                gain,
                shift,
                x if out.values is None else out.values,
                x if out.quantised is None else out.quantised,
                gain if out.scales is None else out.scales,
                past,
                tokens,
                x.stride(0) // width,
                0 if update is None else update.stride(0) // width,
                buffer.stride(0) // width,
                0 if out.scales is None else out.scales.stride(0),
                eps,
                WIDTH=width,
                HAS_UPDATE=update is not None,
                HAS_GATE=gate is not None,
                HAS_VALUES=out.values is not None,
                HAS_FP8=out.quantised is not None,
                LIMIT=LARGEST,
                BLOCK=block,
                num_warps=_warps(block),
            )

    def norm_rotate(self, x: Tensor, weight: Tensor, eps: float, tables: Tables | None) -> None:
        batch, tokens, width = x.shape
        assert x.stride(2) == 1
        assert weight.is_contiguous()
        block = triton.next_power_of_2(width)
        cos, sin = (weight, weight) if tables is None else tables
        assert tables is None or (cos.stride(1) == cos.shape[2] and sin.stride() == cos.stride())
        with torch.cuda.device_of(x):  # Triton takes the current one
            _norm_rotate[(batch * tokens,)](
                x,
                weight,
                cos,
                sin,
                tokens,
                x.stride(0) // x.stride(1),
                x.stride(1),
                0 if tables is None or len(cos) == 1 else cos.stride(0) // cos.shape[2],
                eps,
                WIDTH=width,
                PAIRS=1 if tables is None else cos.shape[2],
                ROTATE=tables is not None,
                BLOCK=block,
                num_warps=_warps(block),
            )

    def quantise(self, x: Tensor, gelu: bool) -> Activations:
        flat = x.flatten(0, -2).contiguous()
        width = flat.shape[1]
        quantised = torch.empty_like(flat, dtype=FP8)
        scales = flat.new_empty(len(flat), 1, dtype=torch.float32)
        block = triton.next_power_of_2(width)
        with torch.cuda.device_of(x):  # Triton takes the current one
            _quantise[(len(flat),)](
                flat,
                quantised,
                scales,
                WIDTH=width,
                GELU=gelu,
                LIMIT=LARGEST,
                BLOCK=block,
                num_warps=_warps(block),
            )
        shape = x.shape[:-1]
        return Activations(None, quantised.unflatten(0, shape), scales.unflatten(0, shape))


def _warps(block: int) -> int:
    """About 32 values a thread."""
    return max(1, min(16, block // 1024))
