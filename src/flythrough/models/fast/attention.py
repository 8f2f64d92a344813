"""Softmax attention through torch's kernels, the fastest first, or an installed FlashAttention."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from flythrough.errors import InputError
from flythrough.models.fast.settings import AttentionBackend

PREFERENCE = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_FLASH_MODULES = ("flash_attn_interface", "flash_attn.cute")  # FlashAttention 3 and 4

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q, k, v [B,N,heads,d], mask [B,1,1,N] or None) -> [B,N,heads,d]."""


def preferred_backends(device: torch.device) -> AbstractContextManager[Any]:
    """Within the block, torch's attention takes cuDNN's kernel where it can."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel(PREFERENCE, set_priority=True)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """torch's attention; call it within :func:`preferred_backends`."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def flash_module() -> Any | None:
    """An installed FlashAttention 3 or 4, or None."""
    for name in _FLASH_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def attention(backend: AttentionBackend) -> Attend:
    """The attention function of a setting.

    Raises:
        InputError: FlashAttention is wanted and not installed.
    """
    if backend == "sdpa":
        return sdpa
    module = flash_module()
    if module is None:
        raise InputError(
            f"attention {backend!r} needs FlashAttention 3 or 4, and neither "
            f"{' nor '.join(_FLASH_MODULES)} can be imported; install one or use 'sdpa'"
        )

    def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return sdpa(q, k, v, mask)
        found = module.flash_attn_func(q, k, v)
        return found[0] if isinstance(found, tuple) else found

    return flash
