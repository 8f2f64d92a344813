"""Inputs of linear layers, in the type those layers multiply in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.models.fast.fp8 import FP8


@dataclass(frozen=True, eq=False)
class Activations:
    """Tokens [B,N,K]: ``values`` in the model's dtype, or e4m3 with float32 scales, or both.

    Attributes:
        values: for products in the model's dtype and for low-rank updates beside 8-bit ones.
        quantised, scales: [B,N,K] e4m3 and [B,N,1].
    """

    values: Tensor | None = None
    quantised: Tensor | None = None
    scales: Tensor | None = None

    @classmethod
    def empty(cls, like: Tensor, *, plain: bool, fp8: bool) -> Activations:
        """Buffers to write into, for tokens like ``like`` [B,N,K]."""
        return cls(
            torch.empty_like(like) if plain else None,
            torch.empty_like(like, dtype=FP8) if fp8 else None,
            like.new_empty(*like.shape[:-1], 1, dtype=torch.float32) if fp8 else None,
        )

    def since(self, token: int) -> Activations:
        """Views of the tokens from ``token`` on."""
        if token == 0:
            return self
        parts = (self.values, self.quantised, self.scales)
        return Activations(*(None if part is None else part[:, token:] for part in parts))
