"""The pass between two convolutions of the Wan codec as one Triton kernel.

A program takes a few pixels with all their channels; its plain twin is ``wan_passes.TorchPasses``.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_VALUES = 4096
"""Values of a program: about 32 a thread."""


@triton.jit(do_not_specialize=["pixels", "frame"])
def _join(  # noqa: PLR0913, PLR0917
    update,
    bias,
    stream,
    gain,
    target,
    out,
    pixels,
    frame,
    height,
    width,
    C: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_STREAM: tl.constexpr,
    HAS_TARGET: tl.constexpr,
    HAS_OUT: tl.constexpr,
    SILU: tl.constexpr,
    DOUBLED: tl.constexpr,
    FOLDED: tl.constexpr,
    LIMIT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    kind = update.dtype.element_ty
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, BLOCK)
    inside = (row < pixels)[:, None] & (columns < C)[None, :]
    place = row.to(tl.int64)[:, None] * C + columns[None, :]
    if DOUBLED:
        x = row % width
        y = (row // width) % height
        number = row // (width * height)
        part = (y % 2) * 2 + x % 2
        source = number.to(tl.int64) * ((height // 2 + 1) * (width // 2 + 1))
        source = source + ((y + 1) // 2) * (width // 2 + 1) + (x + 1) // 2
        read = (source * 4 + part)[:, None] * C + columns[None, :]
    else:
        read = place
    value = tl.load(update + read, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        value += tl.load(bias + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
    if HAS_STREAM:
        value += tl.load(stream + place, mask=inside, other=0.0).to(tl.float32)
    if LIMIT > 0:
        value = tl.minimum(tl.maximum(value, -LIMIT), LIMIT)
    rounded = value.to(kind)
    if HAS_TARGET:
        tl.store(target + place, rounded, mask=inside)
    if HAS_OUT:
        value = tl.where(inside, rounded.to(tl.float32), 0.0)
        length = tl.maximum(tl.sqrt(tl.sum(value * value, 1)), 1e-12)
        value = value / length[:, None]
        value *= tl.load(gain + columns, mask=columns < C, other=0.0).to(tl.float32)[None, :]
        if SILU:
            value = value * tl.sigmoid(value)
        if LIMIT > 0:
            value = tl.minimum(tl.maximum(value, -LIMIT), LIMIT)
        normed = value.to(kind)
        if FOLDED:
            for back in tl.static_range(3):
                there = row.to(tl.int64) + back * frame
                at = (there * 3 + (2 - back))[:, None] * C + columns[None, :]
                tl.store(out + at, normed, mask=inside & (there < pixels)[:, None])
        else:
            tl.store(out + place, normed, mask=inside)


class TritonPasses:
    """The kernel behind the interface of ``wan_passes.WanPasses``, sample by sample."""

    def join(
        self,
        update: Tensor,
        bias: Tensor | None,
        stream: Tensor | None,
        gain: Tensor | None,
        out: Tensor | None,
        *,
        target: Tensor | None = None,
        silu: bool = True,
        doubled: bool = False,
    ) -> None:
        channels = update.shape[-1] // (4 if doubled else 1)
        height, width = update.shape[2], update.shape[3]
        if doubled:
            height, width = 2 * height - 2, 2 * width - 2
        pixels = update.shape[1] * height * width
        block = triton.next_power_of_2(channels)
        rows = max(1, _VALUES // block)
        written = out if gain is not None else None
        for sample in range(update.shape[0]):
            parts = [None if t is None else t[sample] for t in (update, stream, target, written)]
            assert all(part is None or part.is_contiguous() for part in parts)
            given, before, kept, normed = parts
            with torch.cuda.device_of(update):  # or Triton takes the current one, not cuda:N
                _join[(triton.cdiv(pixels, rows),)](
                    given,
                    given if bias is None else bias,
                    given if before is None else before,
                    given if gain is None else gain,
                    given if kept is None else kept,
                    given if normed is None else normed,
                    pixels,
                    height * width,
                    height,
                    width,
                    C=channels,
                    HAS_BIAS=bias is not None,
                    HAS_STREAM=before is not None,
                    HAS_TARGET=kept is not None,
                    HAS_OUT=normed is not None,
                    SILU=silu,
                    DOUBLED=doubled,
                    FOLDED=normed is not None and normed.shape[-1] == 3 * channels,
                    LIMIT=65504.0 if update.dtype == torch.float16 else 0.0,
                    ROWS=rows,
                    BLOCK=block,
                    num_warps=max(1, min(8, rows * block // 1024)),
                )
