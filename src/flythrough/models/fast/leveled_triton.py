"""The Triton kernel of ``leveled.leveled_norm``: one program a token, float32 inside."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _leveled_norm(  # noqa: PLR0913, PLR0917
    x,
    update,
    gate,
    gain,
    shift,
    level,
    out,
    eps,
    WIDTH: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_GATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    row = tl.load(level + token) * WIDTH + columns
    place = token * WIDTH + columns
    wide = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if HAS_UPDATE:
        added = tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
        if HAS_GATE:
            added = added * tl.load(gate + row, mask=inside, other=0.0)
        rounded = (wide + added).to(x.dtype.element_ty)
        tl.store(x + place, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    mean = tl.sum(wide, 0) / WIDTH
    centred = tl.where(inside, wide - mean, 0.0)
    deviation = tl.rsqrt(tl.sum(centred * centred, 0) / WIDTH + eps)
    normed = centred * deviation * tl.load(gain + row, mask=inside, other=0.0)
    normed = normed + tl.load(shift + row, mask=inside, other=0.0)
    tl.store(out + place, normed.to(x.dtype.element_ty), mask=inside)


def leveled_norm(
    x: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    gain: Tensor,
    shift: Tensor,
    level: Tensor,
    eps: float,
) -> Tensor:
    """See ``leveled.LeveledNorm``; all tensors contiguous."""
    width = x.shape[-1]
    given = [one for one in (x, update, gate, gain, shift, level) if one is not None]
    assert all(one.is_contiguous() for one in given)
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    with torch.cuda.device_of(x):  # Triton takes the current one
        _leveled_norm[(x.numel() // width,)](
            x,
            x if update is None else update,
            gain if gate is None else gate,
            gain,
            shift,
            level,
            out,
            eps,
            WIDTH=width,
            HAS_UPDATE=update is not None,
            HAS_GATE=gate is not None,
            BLOCK=block,
            num_warps=max(1, min(16, block // 1024)),
        )
    return out
