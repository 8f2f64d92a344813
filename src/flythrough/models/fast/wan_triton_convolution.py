"""A causal 3x3x3 convolution as one Triton kernel that loads its tiles by the tensor memory
accelerator of Hopper GPUs and later: an alternative to the library's, chosen by a setting.

A tile is a rectangle of pixels of one frame. For each of the 27 taps the same rectangle, shifted,
is loaded and multiplied; what lies beyond the picture comes as zeros from the hardware, so nothing
is padded in space.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

_ROWS, _COLUMNS = 16, 16
"""Pixels of a tile; multiples of them fill the published size without a rest."""
_OUTPUTS = 128


@triton.jit
def _causal(  # noqa: PLR0913, PLR0917
    frames,
    kernel,
    made,
    height,
    width,
    C: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    parts: tl.constexpr = (OUTPUTS + BLOCK_N - 1) // BLOCK_N
    pieces: tl.constexpr = C // BLOCK_K
    tile = tl.program_id(0) // parts
    first = (tl.program_id(0) % parts) * BLOCK_N
    across = tl.cdiv(width, COLUMNS)
    down = tl.cdiv(height, ROWS)
    x = (tile % across) * COLUMNS
    y = (tile // across) % down * ROWS
    frame = tile // (across * down)
    total = tl.zeros((ROWS * COLUMNS, BLOCK_N), dtype=tl.float32)
    for step in range(27 * pieces):
        tap = step // pieces
        k = step % pieces * BLOCK_K
        seen = frames.load([frame + tap // 9, y + tap // 3 % 3 - 1, x + tap % 3 - 1, k])
        weights = kernel.load([first, tap * C + k])
        total = tl.dot(tl.reshape(seen, (ROWS * COLUMNS, BLOCK_K)), weights.T, total)
    place = tl.arange(0, ROWS * COLUMNS)
    row, column = y + place // COLUMNS, x + place % COLUMNS
    output = first + tl.arange(0, BLOCK_N)
    pixel = (frame.to(tl.int64) * height + row) * width + column
    inside = ((row < height) & (column < width))[:, None] & (output < OUTPUTS)[None, :]
    target = made + pixel[:, None] * OUTPUTS + output[None, :]
    tl.store(target, total.to(made.dtype.element_ty), mask=inside)


def can_run(channels: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the kernel takes such a convolution: half precision, 32 channels or multiples of
    them, and a GPU that has the accelerator."""
    if channels % 32 or dtype not in (torch.float16, torch.bfloat16):
        return False
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)


def causal_convolution(buffer: Tensor, kernel: Tensor) -> Tensor:
    """[B,T+2,H,W,C] and [out,27*C], taps in the order time, row, column, to [B,T,H,W,out]."""
    batch, padded, height, width, channels = buffer.shape
    outputs, frames = kernel.shape[0], padded - 2
    made = buffer.new_empty(batch, frames, height, width, outputs)
    block = 64 if channels % 64 == 0 else 32
    tiles = frames * triton.cdiv(height, _ROWS) * triton.cdiv(width, _COLUMNS)
    weights = TensorDescriptor(kernel, list(kernel.shape), list(kernel.stride()), [_OUTPUTS, block])
    for sample in range(batch):
        given = buffer[sample]
        shape = [1, _ROWS, _COLUMNS, block]
        pictures = TensorDescriptor(given, list(given.shape), list(given.stride()), shape)
        _causal[(tiles * triton.cdiv(outputs, _OUTPUTS),)](
            pictures,
            weights,
            made[sample],
            height,
            width,
            C=channels,
            OUTPUTS=outputs,
            ROWS=_ROWS,
            COLUMNS=_COLUMNS,
            BLOCK_N=_OUTPUTS,
            BLOCK_K=block,
            num_warps=8,
            num_stages=3 if block == 64 else 4,
        )
    return made
