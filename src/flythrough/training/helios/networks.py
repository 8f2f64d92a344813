"""The networks of a stage: what is trained of them, and their weights with the training merged in.

Big models are trained by LoRA on every linear layer, with the patch layers frozen, adapted or
trained whole; after a stage everything is merged, so that the next one starts from a plain folder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flythrough import seeds
from flythrough.models.adapters import new_lora
from flythrough.models.helios import HeliosTransformer
from flythrough.models.helios_blocks import PatchProjection
from flythrough.models.linear import Linear
from flythrough.training.helios.recipe_tables import Adapter, Patches
from flythrough.training.parallel import whole

HISTORY_PATCHES = ("patch_short", "patch_mid", "patch_long")


class AdaptedPatches(nn.Module):
    """A patch layer with LoRA beside it: a patch layer to ``rank`` channels, then a linear one."""

    def __init__(self, base: PatchProjection, rank: int, alpha: float, seed: int) -> None:
        super().__init__()
        dim, channels = base.weight.shape[:2]
        time, rows, columns = base.kernel_size
        device = base.weight.device
        self.base_layer = base.requires_grad_(False)
        self.lora_A = PatchProjection(channels, rank, (time, rows, columns)).to(device)
        self.lora_B = Linear(rank, dim, bias=False).to(device)
        self.lora_A.bias = None
        with torch.no_grad():
            source = seeds.generator(seed, "lora-patches", tuple(base.kernel_size).__repr__())
            self.lora_A.weight.copy_(torch.randn(self.lora_A.weight.shape, generator=source) / rank)
            self.lora_B.weight.zero_()
        self.scaling = alpha / rank

    @property
    def weight(self) -> Tensor:
        """That of the layer itself."""
        return self.base_layer.weight

    @property
    def kernel_size(self) -> tuple[int, ...]:
        return self.base_layer.kernel_size

    def forward(self, latents: Tensor) -> Tensor:
        """As :class:`PatchProjection`."""
        tokens: Tensor = self.base_layer(latents)
        beside = self.lora_B(self.lora_A(latents.to(self.lora_A.weight.dtype)))
        return tokens + (beside * self.scaling).to(tokens.dtype)


def prepare(
    network: HeliosTransformer, adapter: Adapter, *, name: str, seed: int, checkpointing: bool
) -> list[nn.Parameter]:
    """Freeze ``network`` but for what ``adapter`` trains; returns that, in float32.

    With rank 0 these are all its weights.
    """
    if checkpointing:
        network.enable_gradient_checkpointing()
    if adapter.rank == 0:
        network.float().requires_grad_(True)
        return list(network.parameters())
    network.requires_grad_(False)
    trained = new_lora(
        network,
        adapter.rank,
        adapter.alpha,
        seed,
        name,
        layers=linear_layers(network),
        gaussian=True,
    )
    _patches(network, ("patch_embedding",), adapter.patch_embedding, adapter, seed, trained)
    _patches(network, HISTORY_PATCHES, adapter.patch_history, adapter, seed, trained)
    return trained


def linear_layers(network: HeliosTransformer) -> list[str]:
    """Every linear layer but those of norms and those called up or down."""
    kept = []
    for name, module in network.named_modules():
        words = name.split(".")
        if isinstance(module, nn.Linear) and not any(w in ("up", "down") for w in words):
            kept.append(name)
    return kept


def _patches(
    network: HeliosTransformer,
    names: tuple[str, ...],
    how: Patches,
    adapter: Adapter,
    seed: int,
    trained: list[nn.Parameter],
) -> None:
    for name in names:
        layer: Any = getattr(network, name)
        if how == "full":
            layer.float().requires_grad_(True)
            trained += list(layer.parameters())
        elif how == "lora":
            adapted = AdaptedPatches(layer, adapter.rank, adapter.alpha, seed)
            setattr(network, name, adapted)
            trained += [*adapted.lora_A.parameters(), *adapted.lora_B.parameters()]


def merged_state(network: HeliosTransformer, name: str, *, keep: bool) -> dict[str, Tensor]:
    """The weights with adapter ``name`` merged in, under the plain keys, on the CPU in the types of
    the base. Sums are made in float32. Every process must take part; only with ``keep`` is
    anything returned."""
    state: dict[str, Tensor] = {}
    for key, parameter in network.named_parameters():
        if ".lora_" in key:
            continue
        full = whole(parameter)
        delta = _delta(network, key, name)
        if not keep:
            continue
        if delta is not None:
            full = (full.float() + delta.view(full.shape).to(full.device)).to(full.dtype)
        state[key.replace(".base_layer.", ".")] = full.contiguous().cpu()
    return state


def _delta(network: HeliosTransformer, key: str, name: str) -> Tensor | None:
    """What LoRA adds to the weight at ``key`` of the network, [out, in...] flattened to 2D."""
    path, _, last = key.rpartition(".base_layer.")
    if not path or last != "weight":
        return None
    layer: Any = network.get_submodule(path)
    if isinstance(layer, AdaptedPatches):
        down, up, scale = layer.lora_A.weight, layer.lora_B.weight, layer.scaling
    elif name in layer.lora_A:
        down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
        scale = layer.scaling[name]
    else:
        return None
    return scale * whole(up).float() @ whole(down).float().flatten(1)


def start_from_wan(source: Any) -> HeliosTransformer:
    """Helios with the weights of a Wan 2.1 text-to-video transformer (diffusers' class).

    The history patches start as the noisy patch spread evenly over their larger kernels (Helios
    section 2.2); everything else is taken over as it is.
    """
    config = dict(source.config)
    known = (
        "patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels",
        "text_dim", "freq_dim", "ffn_dim", "num_layers", "cross_attn_norm", "eps",
    )  # fmt: skip
    width = config["attention_head_dim"]
    plane = 2 * (width // 6)
    network = HeliosTransformer(
        **{key: config[key] for key in known}, rope_dim=(width - 2 * plane, plane, plane)
    )
    state = dict(source.state_dict())
    state["norm_out.scale_shift_table"] = state.pop("scale_shift_table")
    kernel, bias = state["patch_embedding.weight"], state["patch_embedding.bias"]
    for name, factor in zip(HISTORY_PATCHES, (1, 2, 4), strict=True):
        spread = kernel.repeat(1, 1, factor, factor, factor) / factor**3
        state[f"{name}.weight"], state[f"{name}.bias"] = spread, bias.clone()
    network.load_state_dict(state)
    return network
