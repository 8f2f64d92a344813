"""Queries, keys and values of self attention in 8-bit floats (e4m3): one scale for each head.

The twin without hardware support attends to the dequantised values; the kernel of FlashAttention 3
also rounds the weights of the softmax to 8 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.fast.fp8 import FP8, LARGEST, SMALLEST_SCALE
from flythrough.models.fast.kernels import has_triton


class EightBits(NamedTuple):
    """Queries, keys and values [B,N,heads,d] in e4m3 and their float32 scales [B,heads]."""

    values: tuple[Tensor, Tensor, Tensor]
    scales: tuple[Tensor, Tensor, Tensor]


def quantise_all(q: Tensor, k: Tensor, v: Tensor) -> EightBits:
    """``q`` [B,n,heads,d], ``k`` and ``v`` [B,N,heads,d] in 8 bits."""
    if q.device.type == "cuda" and has_triton():
        from flythrough.models.fast.heads_triton import quantise_heads as in_triton

        return EightBits(*in_triton(q, k, v))
    values, scales = zip(*(quantise_heads(part) for part in (q, k, v)), strict=True)
    return EightBits(values, scales)


def quantise_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` [B,N,heads,d] as e4m3 and the scale [B,heads] of each head."""
    wide = x.float()
    scale = (wide.abs().amax((1, 3)) / LARGEST).clamp_min(SMALLEST_SCALE)
    return (wide / scale[:, None, :, None]).clamp(-LARGEST, LARGEST).to(FP8), scale


def dequantised_attention(given: EightBits, dtype: torch.dtype) -> Tensor:
    """The plain twin of the 8-bit kernel: [B,n,heads,d]."""
    q, k, v = (
        (values.float() * scale[:, None, :, None]).transpose(1, 2)
        for values, scale in zip(*given, strict=True)
    )
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).to(dtype)
