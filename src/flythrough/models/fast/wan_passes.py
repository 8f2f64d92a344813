"""What lies between the convolutions of the Wan codec, in plain torch: the twin of the kernel.

Frames are [B,T,H,W,C] with channels last in storage, so that a norm over channels reads one run of
memory. One function does everything between two convolutions: the bias of the one before, the
residual, the norm, SiLU, and the copy into the padded input of the next.
"""

from __future__ import annotations

from functools import cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.fast.kernels import has_triton
from flythrough.models.fast.settings import Kernels

_SMALLEST = 1e-12
"""Least length of the vector of a pixel's channels, as the published norm has it."""


class WanPasses(Protocol):
    """The work between convolutions; all tensors in one type, sums in float32."""

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
        """v = ``stream`` + ``update`` + ``bias``; ``target`` = v; ``out`` = silu(norm(v) * gain).

        Args:
            update: [B,T,H,W,C]; if ``doubled`` [B,T,h+1,w+1,4C], of which pixel (y, x) takes part
                2 (y % 2) + x % 2 at ((y + 1) // 2, (x + 1) // 2), H = 2h and W = 2w.
            stream: [B,T,H,W,C] or absent.
            gain: [C], with the factor sqrt(C) of the norm inside; absent: no ``out``.
            out: [B,T,H,W,C], frames of a larger buffer; or [B,T,H,W,3C], where frame t holds the
                value of frames t-2, t-1 and t side by side: what lies before is left as it is.
            target: [B,T,H,W,C], which may be ``update`` or ``stream`` itself, or absent.
        """
        ...


class TorchPasses:
    """The plain functions."""

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
        value = (_doubled(update) if doubled else update).float()
        if bias is not None:
            value = value + bias.float()
        if stream is not None:
            value = value + stream.float()
        value = saturated(value, update.dtype)
        if target is not None:
            target.copy_(value)
        if gain is None or out is None:
            return
        length = value.float().square().sum(-1, keepdim=True).sqrt().clamp_min(_SMALLEST)
        normed = value.float() / length * gain.float()
        normed = saturated(functional.silu(normed) if silu else normed, update.dtype)
        if out.shape[-1] == normed.shape[-1]:
            out.copy_(normed)
            return
        width = normed.shape[-1]
        for back in range(3):  # frame t is the newest, part 2, of its own place
            frames = max(normed.shape[1] - back, 0)
            part = slice((2 - back) * width, (3 - back) * width)
            out[:, back : back + frames, ..., part] = normed[:, :frames]


class ShapePasses:
    """Shapes alone: what a computation on the meta device needs."""

    def join(self, update: Tensor, *_given: object, **_named: object) -> None:
        del update


def saturated(value: Tensor, dtype: torch.dtype) -> Tensor:
    """``value`` in ``dtype``; what float16 cannot hold becomes its largest number, not infinity."""
    if dtype == torch.float16:
        value = value.clamp(-65504.0, 65504.0)
    return value.to(dtype)


def _doubled(parts: Tensor) -> Tensor:
    """[B,T,h+1,w+1,4C] -> [B,T,2h,2w,C]; see ``WanPasses.join``."""
    height, width = parts.shape[2] - 1, parts.shape[3] - 1
    found = parts.new_empty(*parts.shape[:2], 2 * height, 2 * width, parts.shape[4] // 4)
    for number, part in enumerate(parts.chunk(4, dim=-1)):
        down, right = divmod(number, 2)
        found[:, :, down::2, right::2] = part[:, :, down : down + height, right : right + width]
    return found


def choose_passes(asked: Kernels, device: torch.device) -> WanPasses:
    """The work between convolutions on a device; ``auto`` and ``compiled`` take what suits it."""
    if device.type == "meta":
        return ShapePasses()
    if asked in ("auto", "compiled"):
        nvidia = device.type == "cuda" and torch.version.cuda is not None
        asked = "triton" if nvidia and has_triton() else "torch"
    return _made(asked == "triton")


@cache
def _made(triton: bool) -> WanPasses:
    if not triton:
        return TorchPasses()
    from flythrough.models.fast.wan_triton import TritonPasses

    return TritonPasses()
