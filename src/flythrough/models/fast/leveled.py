"""Residuals and norms of tokens that each have a noise level of their own, in plain torch: the twin
of the kernel. A chunk knows few levels, so every token names a row of a small table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import InputError
from flythrough.models.fast import elementwise
from flythrough.models.fast.kernels import has_triton
from flythrough.models.fast.settings import Kernels


class LeveledNorm(Protocol):
    """``x`` [B,N,D] += ``update`` * ``gate`` in place (absent ones are left out), and LayerNorm(x)
    * gain + shift as a new tensor. Rows [K,D] float32; ``level`` [B,N] int64 says which."""

    def __call__(
        self,
        x: Tensor,
        update: Tensor | None,
        gate: Tensor | None,
        gain: Tensor,
        shift: Tensor,
        level: Tensor,
        eps: float,
    ) -> Tensor: ...


def leveled_norm(
    x: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    gain: Tensor,
    shift: Tensor,
    level: Tensor,
    eps: float,
) -> Tensor:
    """:class:`LeveledNorm`, one operation after the other."""
    wide = x.float()
    if update is not None:
        added = update.float()
        wide = wide + (added if gate is None else added * functional.embedding(level, gate))
        rounded = wide.to(x.dtype)
        x.copy_(rounded)
        wide = rounded.float()
    normed = functional.layer_norm(wide, gain.shape[-1:], eps=eps)
    found = normed * functional.embedding(level, gain) + functional.embedding(level, shift)
    return found.to(x.dtype)


def choose_leveled(asked: Kernels, device: torch.device) -> LeveledNorm:
    """The implementation of a setting on a device.

    Raises:
        InputError: Triton is wanted and not installed.
    """
    if asked == "auto":
        nvidia = device.type == "cuda" and torch.version.cuda is not None
        asked = "triton" if nvidia and has_triton() else "torch"
    if asked == "torch":
        return leveled_norm
    if asked == "compiled":
        return _compiled()
    if not has_triton():
        raise InputError(
            "kernels 'triton' need the package triton, which is not installed; install it or use "
            "'torch'"
        )
    from flythrough.models.fast.leveled_triton import leveled_norm as by_triton

    return by_triton


_KEPT: list[Callable[..., Any]] = []


def _compiled() -> LeveledNorm:
    if not _KEPT:
        backend = elementwise.COMPILER
        _KEPT.append(torch.compile(leveled_norm, fullgraph=True, dynamic=True, backend=backend))
    made: LeveledNorm = _KEPT[0]
    return made
