"""What the fast path may be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kernels = Literal["auto", "torch", "triton", "compiled"]
AttentionBackend = Literal["auto", "sdpa", "flash", "flash8"]
AdapterPlace = Literal["beside", "merged"]

FLASH3_MODULES = {"fa3_fwd_interface": "fa3_fwd", "flash_attn_interface": "flash_attn_3"}
"""Modules of FlashAttention 3 (the package fa3-fwd, a build from source), and where their operators
are found in ``torch.ops``."""


@dataclass(frozen=True)
class FastSettings:
    """How the fast path computes; but for 8 bits every choice gives the same result up to rounding.

    Attributes:
        kernels: norms, residuals and rotations in plain ``torch``, in ``triton`` kernels, or plain
            and ``compiled`` by torch; ``auto`` takes Triton on NVIDIA GPUs, else torch.
        attention: ``sdpa`` is torch's, cuDNN preferred; ``flash`` an installed FlashAttention 3
            or 4; ``auto`` FlashAttention 3 where it is installed and the GPU is a Hopper, else
            torch's; ``flash8`` self attention in 8-bit floats, by FlashAttention 3 (a CPU
            imitates it).
        adapter: low-rank updates are added ``beside`` each product, or ``merged`` into a second
            copy of the weights they change, which costs memory and no time.
        graphs: calls that come back with the same numbers of tokens are recorded as CUDA graphs,
            which costs as much memory as a call and gains where the host is slower than the GPU:
            on several GPUs, hardly on one. Elsewhere than on CUDA nothing is recorded.
    """

    kernels: Kernels = "auto"
    attention: AttentionBackend = "auto"
    adapter: AdapterPlace = "beside"
    graphs: bool = False


@dataclass(frozen=True)
class CodecSettings:
    """How the fast Wan codec computes; every choice gives the same result up to rounding.

    Attributes:
        kernels: between convolutions, plain ``torch`` or one ``triton`` kernel; ``auto`` takes
            Triton on NVIDIA GPUs.
        folded: causal convolutions of up to so many channels take three frames side by side, as a
            convolution of pictures with three times the channels, instead of one over space and
            time: more memory, faster library kernels. 0: none; the default takes those of the
            published codec's full height and width.
        latents_per_pass: latents that go through together; None: as many as memory allows.
    """

    kernels: Kernels = "auto"
    folded: int = 96
    latents_per_pass: int | None = None
