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

    ``gelu`` applies the tanh form of GELU to the result, fused where possible. Both routes agree to
    float32 rounding.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, gelu: bool = False
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        if _onednn_applies(x, self.weight):
            name, algorithm = ("gelu", "tanh") if self.gelu else ("none", "")
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                x.contiguous(), self.weight, self.bias, name, [], algorithm
            )
            return product
        product = functional.linear(x, self.weight, self.bias)
        return functional.gelu(product, approximate="tanh") if self.gelu else product


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
