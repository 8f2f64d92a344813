"""Norms, residuals and rotations between the products, in plain torch: the twin of the kernels.

Tokens are taken sample by sample and part by part (history, noisy), because all tokens of a part
share one row of gates, gains and shifts. ``compiled`` gives the same functions through
``torch.compile`` with a free token count: another count never compiles again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.models.fast.activations import Activations
from flythrough.models.fast.fp8 import quantise_rows
from flythrough.models.rotary import Tables, rotate


class Elementwise(Protocol):
    """What happens between products. All tensors [B,N,D]; rows [B,2,D] float32, history first."""

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
        """``x`` += ``update`` * ``gate`` in place (an absent gate is one), then LayerNorm(x) * gain
        + shift into every buffer of ``out``. The first ``past`` tokens take row 0, others row 1."""
        ...

    def norm_rotate(self, x: Tensor, weight: Tensor, eps: float, tables: Tables | None) -> None:
        """RMS norm over the last axis and rotation by ``tables`` [B or 1,N,.], in place."""
        ...

    def quantise(self, x: Tensor, gelu: bool) -> Activations:
        """``x``, after the tanh form of GELU if asked, as e4m3."""
        ...


def residual_norm(
    x: Tensor,
    update: Tensor | None,
    gate: Tensor | None,
    gain: Tensor,
    shift: Tensor,
    eps: float,
    values: Tensor | None,
    quantised: Tensor | None,
    scales: Tensor | None,
) -> None:
    """One part [n,D] of one sample, with rows [D]."""
    wide = x.float()
    if update is not None:
        added = update.float()
        wide = wide + added if gate is None else torch.addcmul(wide, added, gate)
        rounded = wide.to(x.dtype)
        x.copy_(rounded)
        wide = rounded.float()
    normed = functional.layer_norm(wide, gain.shape, gain, shift, eps).to(x.dtype)
    if values is not None:
        values.copy_(normed)
    if quantised is not None and scales is not None:
        found, scale = quantise_rows(normed)
        quantised.copy_(found)
        scales.copy_(scale)


def norm_rotate(
    x: Tensor, weight: Tensor, eps: float, cos: Tensor | None, sin: Tensor | None
) -> None:
    """One sample [n,D]; tables [n,d] for heads of 2d channels."""
    normed = functional.rms_norm(x.float(), weight.shape, weight.float(), eps)
    if cos is not None and sin is not None:
        heads = normed.unflatten(-1, (-1, 2 * cos.shape[-1]))
        normed = rotate(heads[None], Tables(cos[None], sin[None]))[0].flatten(-2)
    x.copy_(normed)


def gelu_quantise(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """[n,K] to e4m3 and scales."""
    return quantise_rows(functional.gelu(x.float(), approximate="tanh") if gelu else x)


COMPILER = "inductor"
"""torch's compiler backend; tests count compilations with one that makes no machine code."""


class TorchElementwise:
    """The plain functions, or compiled ones."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._compiled = compiled
        self._residual_norm = _maybe_compiled(residual_norm, compiled)
        self._norm_rotate = _maybe_compiled(norm_rotate, compiled)
        self._quantise = _maybe_compiled(gelu_quantise, compiled)

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
        for sample in range(x.shape[0]):
            for row, tokens in enumerate((slice(0, past), slice(past, None))):
                part = x[sample, tokens]
                if not len(part):
                    continue
                buffers = (out.values, out.quantised, out.scales)
                self._residual_norm(
                    self._free(part),
                    None if update is None else self._free(update[sample, tokens]),
                    None if gate is None else gate[sample, row],
                    gain[sample, row],
                    shift[sample, row],
                    eps,
                    *(None if b is None else self._free(b[sample, tokens]) for b in buffers),
                )

    def norm_rotate(self, x: Tensor, weight: Tensor, eps: float, tables: Tables | None) -> None:
        for sample in range(x.shape[0]):
            cos = sin = None
            if tables is not None:
                cos, sin = (self._free(t[sample if len(t) > 1 else 0]) for t in tables)
            self._norm_rotate(self._free(x[sample]), weight, eps, cos, sin)

    def quantise(self, x: Tensor, gelu: bool) -> Activations:
        values, scales = self._quantise(self._free(x.flatten(0, -2)), gelu)
        shape = x.shape[:-1]
        return Activations(None, values.unflatten(0, shape), scales.unflatten(0, shape))

    def _free(self, tokens: Tensor) -> Tensor:
        """The same tensor, its first axis free for the compiler."""
        if self._compiled and len(tokens) > 1:
            torch._dynamo.mark_dynamic(tokens, 0)
        return tokens


def _maybe_compiled(function: Callable[..., Any], compiled: bool) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, backend=COMPILER) if compiled else function
