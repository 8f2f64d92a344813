"""Softmax attention: an installed FlashAttention where it runs, else torch's, fastest first.

FlashAttention 3 (Shah et al. 2024) is 9 to 20 % faster than cuDNN on Hopper GPUs, as exact, and
needs no plan for a new number of tokens. Its 8-bit form is ``eight_bit_attention``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from flythrough.errors import InputError
from flythrough.models.fast.eight_bit_attention import dequantised_attention, quantise_all
from flythrough.models.fast.fp8 import FP8
from flythrough.models.fast.settings import FLASH3_MODULES, AttentionBackend

PREFERENCE = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_FLASH4_MODULE = "flash_attn.cute"
_HOPPER = 9
"""Major compute capability."""
_WIDEST_HEAD = 256
_ALIGNMENT = 16
"""Bytes; FlashAttention 3 refuses heads of another width."""

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


def is_planned(backend: AttentionBackend, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention waits for a plan of cuDNN when a number of tokens is new."""
    flash = backend != "sdpa" and _runs_flash3(device, dtype)
    return device.type == "cuda" and backend in {"auto", "sdpa"} and not flash


def plan(like: Tensor, queries: Sequence[int], tokens: int) -> None:
    """Let cuDNN plan for ``queries`` that read ``tokens``, with shapes and strides as in a block;
    of use where attention :func:`is_planned`.

    cuDNN plans on the host, in the thread that asks, and a plan serves that thread alone: this is
    called while the device is busy with something else.

    Args:
        like: [1,heads,d] on the device, in the dtype of the work.
        queries: how many tokens ask, one call each.
    """
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


@cache
def flash3() -> Callable[..., tuple[Tensor, ...]] | None:
    """The forward operator of an installed FlashAttention 3, or None.

    The operator itself: the function around it takes the host four times as long.
    """
    for name, operators in FLASH3_MODULES.items():
        try:
            importlib.import_module(name)
        except ImportError:  # also a build for another CUDA
            continue
        found: Callable[..., tuple[Tensor, ...]] | None = getattr(
            getattr(torch.ops, operators), "fwd", None
        )
        if found is not None:
            return found
    return None


def prompt_backend(backend: AttentionBackend) -> AttentionBackend:
    """The setting for reading the prompt: few keys, kept in the model's dtype."""
    return "auto" if backend == "flash8" else backend


def attention(backend: AttentionBackend, device: torch.device) -> Attend:
    """The attention function of a setting. Where there is a mask, and where FlashAttention 3 does
    not know the type or the width of the heads, torch's kernels are taken.

    Args:
        device: where it will attend; what is there is looked up once, so move networks before.

    Raises:
        InputError: FlashAttention is wanted and not there.
    """
    if backend == "sdpa":
        return sdpa
    if backend == "flash8":
        return _eight_bit(device)
    if backend == "auto" or has_flash3(device):
        return _flash3_or_torch
    return _flash4()


def _flash3_or_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None or not _takes(q, q.dtype.itemsize):
        return sdpa(q, k, v, mask)
    operator = flash3()
    assert operator is not None
    return operator(q, k, v, num_splits=1)[0]


def _eight_bit(device: torch.device) -> Attend:
    operator = flash3() if has_flash3(device) else None
    if device.type == "cuda" and operator is None:
        raise InputError(
            f"attention in 8 bits needs FlashAttention 3 and a Hopper GPU (compute capability "
            f"{_HOPPER}.x), and {device} lacks one of them; use 8-bit products alone (fp8)."
        )

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None or (operator is not None and not _takes(q, FP8.itemsize)):
            return _flash3_or_torch(q, k, v, mask)
        made = quantise_all(q, k, v)
        if operator is None:
            return dequantised_attention(made, q.dtype)
        (q8, k8, v8), (q_scale, k_scale, v_scale) = made
        scales = {"q_descale": q_scale, "k_descale": k_scale, "v_descale": v_scale}
        return operator(q8, k8, v8, **scales, num_splits=1)[0]

    return attend


def _flash4() -> Attend:
    try:
        module = importlib.import_module(_FLASH4_MODULE)
    except ImportError as error:
        known = ", ".join((*FLASH3_MODULES, _FLASH4_MODULE))
        raise InputError(
            f"attention 'flash' needs FlashAttention 3 on a Hopper GPU, or FlashAttention 4, and "
            f"none of {known} serves here; install one or use 'auto'."
        ) from error

    def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            return sdpa(q, k, v, mask)
        found = module.flash_attn_func(q, k, v)
        return found[0] if isinstance(found, tuple) else found

    return flash


def _takes(q: Tensor, itemsize: int) -> bool:
    """Whether FlashAttention 3 computes queries [B,N,heads,d] such as these, given to it with
    ``itemsize`` bytes a value."""
    width = q.shape[-1]
    aligned = width * itemsize % _ALIGNMENT == 0
    return width <= _WIDEST_HEAD and aligned and _runs_flash3(q.device, q.dtype)


def _runs_flash3(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and has_flash3(device)


@cache
def has_flash3(device: torch.device) -> bool:
    """Whether ``device`` is a Hopper GPU and FlashAttention 3 is installed."""
    return is_hopper(device) and flash3() is not None


def is_hopper(device: torch.device) -> bool:
    """Whether ``device`` is an NVIDIA GPU of that generation; AMD's also call themselves 9.x."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] == _HOPPER
