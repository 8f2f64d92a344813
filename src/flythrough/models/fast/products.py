"""The linear layers of a block as the fast path multiplies them.

Layers that read the same tokens are one product over one weight; the modules' own parameters become
slices of it, so that nothing is stored twice. Active adapters enter as a low-rank update beside the
product or as a merged copy; switching them only chooses among products already made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional

from flythrough.errors import WeightsError
from flythrough.models.fast.activations import Activations
from flythrough.models.fast.fp8 import PRODUCTS, Fp8Linear, quantise_rows, scaled_product
from flythrough.models.fast.settings import AdapterPlace
from flythrough.models.linear import linear


@dataclass(frozen=True, eq=False)
class Product:
    """x W^T + b, and beside it x A^T B^T of the active adapters.

    Attributes:
        weight: [O,K] in the model's dtype, or e4m3 with ``scale`` [O,1].
        down, up: [r,K] and [O,r], their scaling folded in; None without adapter.
        dtype: of the result.
    """

    weight: Tensor
    bias: Tensor | None
    scale: Tensor | None
    dtype: torch.dtype
    down: Tensor | None = None
    up: Tensor | None = None

    @property
    def fp8(self) -> bool:
        return self.scale is not None

    @property
    def needs_values(self) -> bool:
        """Whether inputs are wanted in the model's dtype."""
        return self.scale is None or self.down is not None

    def rows(self, start: int, stop: int) -> Product:
        """The product with some of the output channels alone."""
        return replace(
            self,
            weight=self.weight[start:stop],
            bias=None if self.bias is None else self.bias[start:stop],
            scale=None if self.scale is None else self.scale[start:stop],
            up=None if self.up is None else self.up[start:stop],
        )

    def __call__(self, given: Activations, *, gelu: bool = False) -> Tensor:
        """[B,N,O]; the tanh form of GELU of it if asked."""
        fuse = gelu and self.down is None
        if self.scale is not None:
            assert given.quantised is not None
            assert given.scales is not None
            shape = given.quantised.shape[:-1]
            found = scaled_product(
                given.quantised.flatten(0, -2),
                given.scales.flatten(0, -2),
                self.weight,
                self.scale,
                self.bias,
                self.dtype,
            ).unflatten(0, shape)
            fuse = False
        else:
            assert given.values is not None
            found = _product(given.values, self.weight, self.bias, gelu=fuse)
        if self.down is not None and self.up is not None:
            assert given.values is not None
            inner = functional.linear(given.values.flatten(0, -2), self.down)
            found.flatten(0, -2).addmm_(inner, self.up.t())
        if gelu and not fuse:
            return functional.gelu(found, approximate="tanh")
        return found


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> Tensor:
    if gelu and bias is not None and x.device.type == "cuda":
        # cuBLAS applies GELU to the sum before it is stored: one pass over memory less
        flat = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
        return flat.unflatten(0, x.shape[:-1])
    return linear(x, weight, bias, gelu=gelu)


@dataclass(frozen=True, eq=False)
class BlockProducts:
    """All products of one block."""

    qkv: Product
    out: Product
    cross_q: Product
    cross_out: Product
    ffn_in: Product
    ffn_out: Product

    @cached_property
    def apart(self) -> tuple[Product, Product, Product]:
        """Queries, keys and values as products of their own, over the same weights."""
        width = len(self.qkv.weight) // 3
        query, key, value = (self.qkv.rows(n * width, (n + 1) * width) for n in range(3))
        return query, key, value


def linear_layers(block: nn.Module) -> list[nn.Module]:
    """The layers that :func:`block_products` reads, in its order."""
    return [block.get_submodule(name) for name in PRODUCTS]


def block_products(block: nn.Module, dtype: torch.dtype, place: AdapterPlace) -> BlockProducts:
    """Products of a block of Helios or Wan under the adapters that are active now.

    Raises:
        WeightsError: a layer that is no linear layer of ours.
    """
    q, k, v, *others = linear_layers(block)
    join_weights([base_of(layer) for layer in (q, k, v)])
    return BlockProducts(
        _made([q, k, v], dtype, place), *(_made([layer], dtype, place) for layer in others)
    )


def base_of(layer: nn.Module) -> nn.Linear:
    """The layer below any adapter."""
    base = layer.get_base_layer() if isinstance(layer, LoraLinear) else layer
    if not isinstance(base, nn.Linear):
        raise WeightsError(
            f"a layer of type {type(base).__name__} cannot take the fast path; use the plain one"
        )
    return base


def active_adapters(layer: nn.Module) -> tuple[str, ...]:
    """Names of the adapters of one layer that count."""
    if not isinstance(layer, LoraLinear) or layer.disable_adapters:
        return ()
    return tuple(name for name in layer.active_adapters if name in layer.lora_A)


def join_weights(layers: list[nn.Linear]) -> None:
    """Lay weights (scales, biases) of ``layers`` one after the other in one storage, unless they
    lie so already."""
    with torch.inference_mode(False), torch.no_grad():
        for name in ("weight", "bias", "weight_scale"):
            found = [getattr(layer, name, None) for layer in layers]
            parts = [part for part in found if part is not None]
            if len(parts) < len(found) or _adjacent(parts):
                continue
            whole = torch.cat([part.detach() for part in parts])
            lengths = [len(part) for part in parts]
            for part, view in zip(parts, whole.split(lengths), strict=True):
                part.data = view


def _adjacent(parts: list[Tensor]) -> bool:
    at = parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != at or not part.is_contiguous():
            return False
        at += part.numel() * part.element_size()
    storages = {part.untyped_storage().data_ptr() for part in parts}
    return len(storages) == 1


def _whole(parts: list[Tensor | None]) -> Tensor | None:
    """One tensor over adjacent ones."""
    known = [part.detach() for part in parts if part is not None]
    if not known:
        return None
    first = known[0]
    size = (sum(len(part) for part in known), *first.shape[1:])
    return first.as_strided(size, first.stride()) if len(known) > 1 else first


def _made(layers: list[nn.Module], dtype: torch.dtype, place: AdapterPlace) -> Product:
    bases = [base_of(layer) for layer in layers]
    weight = _whole([base.weight for base in bases])
    assert weight is not None
    scale = _whole([base.weight_scale if isinstance(base, Fp8Linear) else None for base in bases])
    product = Product(weight, _whole([base.bias for base in bases]), scale, dtype)
    down, up = _low_rank(layers, bases)
    if down is None or up is None:
        return product
    if place == "beside":
        return replace(product, down=down.to(dtype), up=up.to(dtype))
    wide = weight.float() if scale is None else weight.float() * scale
    wide = torch.addmm(wide, up, down)
    if scale is None:
        return replace(product, weight=wide.to(dtype))
    values, scales = quantise_rows(wide)
    return replace(product, weight=values, scale=scales)


def _low_rank(
    layers: list[nn.Module], bases: list[nn.Linear]
) -> tuple[Tensor | None, Tensor | None]:
    """Joint down [r,K] and up [O,r] projections, float32, zero where layers do not share."""
    downs: list[Tensor] = []
    ups: list[tuple[int, Tensor]] = []
    start = 0
    for layer, base in zip(layers, bases, strict=True):
        for name in active_adapters(layer):
            assert isinstance(layer, LoraLinear)
            low, high = layer.lora_A[name], layer.lora_B[name]
            assert isinstance(low, nn.Linear)
            assert isinstance(high, nn.Linear)
            downs.append(low.weight.detach().float())
            ups.append((start, high.weight.detach().float() * layer.scaling[name]))
        start += base.out_features
    if not downs:
        return None, None
    up = downs[0].new_zeros(start, sum(len(down) for down in downs))
    column = 0
    for row, part in ups:
        up[row : row + part.shape[0], column : column + part.shape[1]] = part
        column += part.shape[1]
    return torch.cat(downs), up
