"""Softmax attention through torch's kernels, the fastest first, or an installed FlashAttention."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
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

RARE_PREFERENCE = [PREFERENCE[1], PREFERENCE[0], *PREFERENCE[2:]]
RARE_TOKENS = 5000
"""Up to so many tokens cuDNN's plan for a new count costs more than its kernel saves in a chunk."""

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q, k, v [B,N,heads,d], mask [B,1,1,N] or None) -> [B,N,heads,d]."""


def preferred_backends(device: torch.device, rare: bool = False) -> AbstractContextManager[Any]:
    """Within the block, torch's attention takes cuDNN's kernel where it can; the flash kernel first
    for a ``rare`` number of tokens (:func:`is_rare`)."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel(RARE_PREFERENCE if rare else PREFERENCE, set_priority=True)


def is_rare(tokens: int, dropped: bool) -> bool:
    """Whether cuDNN is not worth a plan for ``tokens``: some were ``dropped``, so that the next
    chunk has another number, and they are few. A function of the work alone, so that a chunk made
    again gets the same kernel."""
    return dropped and tokens <= RARE_TOKENS


def plan(backend: AttentionBackend, like: Tensor, queries: Sequence[int], tokens: int) -> None:
    """Let cuDNN plan for ``queries`` that read ``tokens``, with shapes and strides as in a block.

    cuDNN plans on the host, in the thread that asks, and a plan serves that thread alone: this is
    called while the device is busy with something else.

    Args:
        like: [1,heads,d] on the device, in the dtype of the work.
        queries: how many tokens ask, one call each.
    """
    if like.device.type != "cuda" or backend != "sdpa":
        return
    _, heads, width = like.shape
    with preferred_backends(like.device), torch.no_grad():
        for count in queries:
            # Strides belong to a plan: queries share a product with keys and values, or have one
            # of their own.
            shared = 3 if count == tokens else 2
            product = like.new_empty(1, tokens, shared * heads * width)
            *own, keys, values = (p.unflatten(2, (heads, width)) for p in product.chunk(shared, 2))
            asking = own[0] if own else like.new_empty(1, count, heads, width)
            sdpa(asking, keys, values, None)


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
