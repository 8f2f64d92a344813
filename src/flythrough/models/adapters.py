"""Low-rank adapters (LoRA) beside the denoiser's weights: attach, scale, switch, train, detach.

An adapter is never fused into the base weights: fusing and unfusing in bfloat16 changes them for
good. Files are read and written by ``models.lora_files``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from flythrough import seeds
from flythrough.errors import WeightsError
from flythrough.models.helios import HeliosTransformer
from flythrough.models.lora_files import LoraFile
from flythrough.models.lora_layouts import underscored

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Self-attention layers that a new adapter changes."""


def attach_lora(
    transformer: HeliosTransformer, lora: LoraFile, name: str = "camera", scale: float = 1.0
) -> None:
    """Add ``lora`` beside the base weights, active and without gradients.

    Its low-rank update counts ``scale`` times. An adapter of that name is replaced.

    Raises:
        WeightsError: layers or shapes are not those of ``transformer``.
    """
    found = _fitting_layers(transformer, lora)
    _inject(transformer, name, sorted(found.values()), lora.rank, lora.alpha * scale)
    modules = dict(_adapted(transformer, name))
    for given, layer in found.items():
        for side in "AB":
            weight = _weight(modules[layer], side, name)
            if weight.dtype.itemsize == 1:  # beside an 8-bit layer an update stays wide
                weight.data = torch.empty_like(weight, dtype=transformer.dtype)
            with torch.no_grad():
                weight.copy_(lora.state[f"{given}.lora_{side}.weight"])
            weight.requires_grad_(False)


def detach_lora(transformer: HeliosTransformer, name: str = "camera") -> None:
    """Remove one adapter; others stay as they are.

    Without any left, the modules of the network are again those that it had before the first one.

    Raises:
        WeightsError: no adapter of that name is attached.
    """
    for layer, module in _adapted(transformer, name):
        if len(module.lora_A) > 1:
            flags = [(p, p.requires_grad) for p in module.parameters()]
            active = [other for other in _active(module) if other != name]
            with warnings.catch_warnings():
                # PEFT says which other adapter it would choose; what counts is set below.
                warnings.filterwarnings("ignore", message="Adapter .* was active")
                module.delete_adapter(name)
            for parameter, flag in flags:
                parameter.requires_grad_(flag)
            _activate(module, active)
        else:
            parent, _, child = layer.rpartition(".")
            setattr(transformer.get_submodule(parent), child, module.get_base_layer())
    del transformer.peft_config[name]
    if not transformer.peft_config:
        del transformer.peft_config
        transformer._hf_peft_config_loaded = False


def attached_loras(transformer: HeliosTransformer) -> list[str]:
    """Names of the attached adapters, active or not."""
    return list(getattr(transformer, "peft_config", {}))


def active_loras(transformer: HeliosTransformer) -> list[str]:
    """Names of the attached adapters that count now."""
    return _active_names(transformer) if attached_loras(transformer) else []


def new_lora(
    transformer: HeliosTransformer,
    rank: int = 32,
    alpha: float | None = None,
    seed: int = 0,
    name: str = "camera",
    *,
    reference: bool = False,
    layers: Sequence[str] | None = None,
    gaussian: bool = False,
) -> list[nn.Parameter]:
    """Add a fresh, active adapter for training and return its float32 parameters.

    It sits on the self-attention layers of every block, or on ``layers``. A is Kaiming-uniform from
    ``seed`` (or, if ``gaussian``, normal with deviation 1/rank), B zero, so that training starts
    from the base model. Alpha is the rank unless given. ``reference`` draws A as the published
    trainer of camera adapters does: by PEFT itself, layer after layer, from torch's global
    generator with ``seed`` (which is left as it was).
    """
    layers = layers or [
        f"blocks.{block}.attn1.{target}"
        for block in range(len(transformer.blocks))
        for target in TARGETS
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(transformer, name, [*layers], rank, float(rank if alpha is None else alpha))
    parameters = []
    for layer, module in _adapted(transformer, name):
        for side in "AB":
            weight = _weight(module, side, name)
            weight.data = weight.data.float()
            if not reference:
                with torch.no_grad():
                    source = seeds.generator(seed, "lora", layer)
                    weight.copy_(_start(weight, side, source, gaussian=gaussian))
            weight.requires_grad_(True)
            parameters.append(weight)
    return parameters


def lora_state(transformer: HeliosTransformer, name: str = "camera") -> dict[str, Tensor]:
    """The adapter's tensors, float32 on the CPU, keyed as in ``LoraFile.state``."""
    matrices = _matrices(transformer, name)
    return {key: weight.detach().float().cpu().clone() for key, weight in matrices.items()}


def fill_lora(
    transformer: HeliosTransformer, state: dict[str, Tensor], name: str = "camera"
) -> None:
    """Put ``state``, keyed as in ``LoraFile.state``, into the adapter.

    Raises:
        WeightsError: its layers or shapes are not those of the adapter.
    """
    mine = _matrices(transformer, name)
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in mine.items()}:
        raise WeightsError(
            f"the adapter {name!r} has {len(mine)} matrices, the given one {len(state)}, or their "
            "shapes differ; give one of the same layers and rank"
        )
    with torch.no_grad():
        for key, weight in mine.items():
            weight.copy_(state[key])


def set_lora_active(transformer: HeliosTransformer, name: str, active: bool) -> None:
    """Switch one adapter on or off; others and all gradient flags stay as they are.

    With no active adapter the model computes exactly what it did before one was attached.

    Raises:
        WeightsError: no adapter of that name is attached.
    """
    _adapted(transformer, name)
    for module in transformer.modules():
        if not isinstance(module, LoraLinear):
            continue
        now = _active(module)
        if (name in now) == active or name not in module.lora_A:
            continue
        wanted = [*now, name] if active else [other for other in now if other != name]
        _activate(module, wanted)


def _activate(module: LoraLinear, names: list[str]) -> None:
    """Exactly the adapters ``names`` of one layer count; PEFT would also change gradient flags."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    if names:
        module.enable_adapters(True)
        module.set_adapter(names)
    else:
        module.enable_adapters(False)
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def _inject(
    transformer: HeliosTransformer, name: str, layers: list[str], rank: int, alpha: float
) -> None:
    if name in attached_loras(transformer):
        detach_lora(transformer, name)
    flags = {id(p): p.requires_grad for p in transformer.parameters()}
    others = _active_names(transformer)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # Several adapters side by side are meant; PEFT warns of them.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, transformer, adapter_name=name)
    transformer._hf_peft_config_loaded = True
    for module in transformer.modules():
        if isinstance(module, LoraLinear):
            _activate(module, [other for other in (*others, name) if other in module.lora_A])
    for parameter in transformer.parameters():
        if id(parameter) in flags:
            parameter.requires_grad_(flags[id(parameter)])


def _active(module: LoraLinear) -> list[str]:
    """The adapters of one layer that count."""
    return [] if module.disable_adapters else list(module.active_adapters)


def _active_names(transformer: HeliosTransformer) -> list[str]:
    found = [_active(m) for m in transformer.modules() if isinstance(m, LoraLinear)]
    return list(dict.fromkeys(name for names in found for name in names))


def _adapted(transformer: HeliosTransformer, name: str) -> list[tuple[str, LoraLinear]]:
    """Layers that carry adapter ``name``."""
    found = [
        (layer, module)
        for layer, module in transformer.named_modules()
        if isinstance(module, LoraLinear) and name in module.lora_A
    ]
    if not found:
        attached = ", ".join(attached_loras(transformer)) or "none"
        raise WeightsError(
            f"no adapter named {name!r} is attached (there is: {attached}); attach one with "
            "attach_lora or new_lora first"
        )
    return found


def _matrices(transformer: HeliosTransformer, name: str) -> dict[str, nn.Parameter]:
    """The adapter's own parameters, keyed as in ``LoraFile.state``."""
    return {
        f"{layer}.lora_{side}.weight": _weight(module, side, name)
        for layer, module in _adapted(transformer, name)
        for side in "AB"
    }


def _weight(module: LoraLinear, side: str, name: str) -> nn.Parameter:
    weight: nn.Parameter = getattr(module, f"lora_{side}")[name].weight
    return weight


def _start(weight: Tensor, side: str, source: torch.Generator, *, gaussian: bool) -> Tensor:
    """Initial values: Kaiming-uniform with slope sqrt(5), or normal, for A; zero for B."""
    if side == "B":
        return torch.zeros_like(weight)
    if gaussian:
        return torch.randn(weight.shape, generator=source) / weight.shape[0]
    bound = 1.0 / math.sqrt(weight.shape[1])
    return (torch.rand(weight.shape, generator=source) * 2 - 1) * bound


def _fitting_layers(transformer: HeliosTransformer, lora: LoraFile) -> dict[str, str]:
    """The transformer's name of every layer of ``lora``, after their shapes were compared."""
    linear: dict[str, nn.Linear] = {}
    names: dict[str, str] = {}
    for name, module in transformer.named_modules():
        plain = module.get_base_layer() if isinstance(module, LoraLinear) else module
        if isinstance(plain, nn.Linear) and ".base_layer" not in name and ".lora_" not in name:
            linear[name], names[underscored(name)] = plain, name
    found = {}
    for given in lora.layers:
        layer = names.get(underscored(given))
        if layer is None:
            raise WeightsError(
                f"the adapter changes {given}, which this transformer does not have as a linear "
                "layer; it belongs to another model, so use one trained for this one"
            )
        down, up = (lora.state[f"{given}.lora_{side}.weight"] for side in "AB")
        ours = linear[layer].in_features, linear[layer].out_features
        theirs = down.shape[1], up.shape[0]
        if ours != theirs:
            raise WeightsError(
                f"the adapter's {layer} maps {theirs[0]} to {theirs[1]} channels, but this "
                f"transformer's maps {ours[0]} to {ours[1]}; use an adapter trained for this model"
            )
        found[given] = layer
    return found
