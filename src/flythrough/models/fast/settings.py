"""What the fast path may be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kernels = Literal["auto", "torch", "triton", "compiled"]
AttentionBackend = Literal["sdpa", "flash"]
AdapterPlace = Literal["beside", "merged"]


@dataclass(frozen=True)
class FastSettings:
    """How the fast path computes; every choice gives the same result up to rounding.

    Attributes:
        kernels: norms, residuals and rotations in plain ``torch``, in ``triton`` kernels, or plain
            and ``compiled`` by torch; ``auto`` takes Triton on NVIDIA GPUs, else torch.
        attention: ``sdpa`` is torch's, cuDNN preferred; ``flash`` an installed FlashAttention 3
            or 4.
        adapter: low-rank updates are added ``beside`` each product, or ``merged`` into a second
            copy of the weights they change, which costs memory and no time.
    """

    kernels: Kernels = "auto"
    attention: AttentionBackend = "sdpa"
    adapter: AdapterPlace = "beside"
