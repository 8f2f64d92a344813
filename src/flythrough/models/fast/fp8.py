"""Linear layers in 8-bit floats (e4m3): one scale for each output channel and each token.

The twin without hardware support multiplies the dequantised values in float32; both agree to the
rounding of the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.linear import Linear

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
SMALLEST_SCALE = 1e-12
_ALIGNMENT = 16
"""Bytes; cuBLAS refuses scales that begin elsewhere."""


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` [..., K] as e4m3 and the float32 scale [..., 1] of each row."""
    wide = x.float()
    scale = (wide.abs().amax(-1, keepdim=True) / LARGEST).clamp_min(SMALLEST_SCALE)
    return (wide / scale).clamp(-LARGEST, LARGEST).to(FP8), scale


def scaled_product(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """``x`` [M,K] times ``weight`` [N,K] transposed, both e4m3, with scales [M,1] and [N,1]."""
    if x.device.type != "cuda":
        return dequantised_product(x, x_scale, weight, weight_scale, bias, dtype)
    return torch._scaled_mm(
        x,
        weight.t(),
        scale_a=aligned(x_scale),
        scale_b=weight_scale.t(),
        bias=bias,
        out_dtype=dtype,
        use_fast_accum=True,
    )


def aligned(scales: Tensor) -> Tensor:
    """``scales`` at an address that cuBLAS takes; those of the tokens behind some history need not
    begin at one."""
    return scales.clone() if scales.data_ptr() % _ALIGNMENT else scales


def dequantised_product(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """The plain twin of :func:`scaled_product`."""
    wide = (x.float() * x_scale) @ (weight.float() * weight_scale).t()
    return (wide if bias is None else wide + bias.float()).to(dtype)


class Fp8Linear(Linear):
    """A linear layer whose weight [out,in] is e4m3 and whose inputs are quantised row by row."""

    weight_scale: Tensor

    @classmethod
    def of(cls, layer: nn.Linear) -> Fp8Linear:
        """``layer`` quantised, on its device; its bias is shared."""
        with torch.device("meta"):
            made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None)
        values, scale = quantise_rows(layer.weight.detach())
        made.weight = nn.Parameter(values, requires_grad=False)
        made.bias = layer.bias
        made.register_buffer("weight_scale", scale)
        return made

    def forward(self, x: Tensor, gelu: bool = False) -> Tensor:
        values, scale = quantise_rows(x.flatten(0, -2))
        product = scaled_product(
            values, scale, self.weight, self.weight_scale, self.bias, x.dtype
        ).unflatten(0, x.shape[:-1])
        return functional.gelu(product, approximate="tanh") if gelu else product


PRODUCTS = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn2.to_q",
    "attn2.to_out.0",
    "ffn.net.0.proj",
    "ffn.net.2",
)
"""Large linear layers of a block; keys and values of the prompt are computed once anyway."""


def quantise_blocks(blocks: Iterable[nn.Module], device: torch.device | None = None) -> None:
    """Replace the large linear layers of every block in place; their weights are given up.

    Layers that carry an adapter keep it. Quantising twice changes nothing.

    Args:
        device: blocks go there one after the other, each before it is quantised, so that never
            more than one of them lies there in full precision; None: they stay where they are.
    """
    with torch.inference_mode(False), torch.no_grad():
        for block in blocks:
            if device is not None:
                block.to(device)
            for parent, name, layer in _full_layers(block):
                setattr(parent, name, Fp8Linear.of(layer))


def saved_bytes(blocks: Iterable[nn.Module]) -> int:
    """What :func:`quantise_blocks` would save."""
    weights = [layer.weight for block in blocks for _, _, layer in _full_layers(block)]
    return sum(w.numel() * (w.element_size() - FP8.itemsize) - 4 * len(w) for w in weights)


def _full_layers(block: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Large linear layers that are not 8-bit yet, each with what holds it and its name there."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    for path in PRODUCTS:
        parent_path, _, name = path.rpartition(".")
        parent = block.get_submodule(parent_path)
        layer = parent.get_submodule(name)
        if isinstance(layer, LoraLinear):
            parent, name, layer = layer, "base_layer", layer.get_base_layer()
        if isinstance(layer, nn.Linear) and not isinstance(layer, Fp8Linear):
            yield parent, name, layer
