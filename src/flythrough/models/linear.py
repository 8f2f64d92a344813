"""The linear layer of the denoiser: torch's, with a faster product on CPUs during inference."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# oneDNN uses the wide vector units of every maker's CPUs, where the BLAS behind torch's linear may
# not: it halves the time of a product on AMD machines.
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """``nn.Linear``; float32 products without gradients on a CPU go through oneDNN.

    Called with ``gelu`` it applies the tanh form of GELU to the result, fused where possible. Both
    routes agree to float32 rounding.
    """

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=gelu)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """The product of :class:`Linear` over weights that belong to no layer."""
    if _onednn_applies(x, weight):
        name, algorithm = ("gelu", "tanh") if gelu else ("none", "")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.contiguous(), weight, bias, name, [], algorithm
        )
        return product
    product = functional.linear(x, weight, bias)
    return functional.gelu(product, approximate="tanh") if gelu else product


def with_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """The tanh form of GELU of ``layer(x)``.

    An adapter around a :class:`Linear` adds to its product before GELU; one that is switched off
    leaves every bit as it is without it.
    """
    if isinstance(layer, Linear) or getattr(layer, "disable_adapters", False):
        activated: Tensor = layer(x, gelu=True)
        return activated
    return functional.gelu(layer(x), approximate="tanh")


def _onednn_applies(x: Tensor, weight: Tensor) -> bool:
    return (
        _ONEDNN
        and not torch.compiler.is_compiling()
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
    )
