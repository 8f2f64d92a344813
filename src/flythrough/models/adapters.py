"""Low-rank adapters (LoRA) of the denoiser, in the PEFT layout of the published files.

An adapter is never fused into the base weights: fusing and unfusing in bfloat16 changes them for
good. Only safetensors files are read; they carry rank and alpha as metadata.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import Linear as LoraLinear
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from flythrough import seeds
from flythrough.errors import WeightsError
from flythrough.models.helios import HeliosTransformer

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Self-attention layers that a new adapter changes."""

_PREFIX = "transformer."
_DIFFUSERS_METADATA = "lora_adapter_metadata"
_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
_PICKLED = {".pt", ".pth", ".bin", ".ckpt"}


@dataclass(frozen=True, eq=False)
class LoraFile:
    """An adapter in memory.

    Attributes:
        state: ``LAYER.lora_A.weight`` [rank,in] and ``LAYER.lora_B.weight`` [out,rank] by the
            denoiser's layer names, without prefix.
        rank: inner width, equal in all layers.
        alpha: the product is scaled by alpha / rank.
        metadata: further entries of the file.
    """

    state: dict[str, Tensor]
    rank: int
    alpha: float
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        """Names of the layers it changes, sorted."""
        return sorted({name.split(".lora_")[0] for name in self.state})


def read_lora(path: str | Path) -> LoraFile:
    """Read a ``.safetensors`` adapter.

    Keys may start with ``transformer.`` and may name the adapter before ``.weight``. Alpha comes
    from the file's metadata; without an entry it equals the rank, as in the published files.

    Raises:
        WeightsError: a pickled file, no file, an unreadable one, or keys that are no LoRA.
    """
    file = Path(path)
    if file.suffix.lower() in _PICKLED:
        raise WeightsError(
            f"{file} is a pickled file and may run code when opened; turn it into safetensors with "
            f"`flythrough models convert {file}` first"
        )
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = dict(opened.metadata() or {})
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file} is not a readable adapter ({error}); give a LoRA in a .safetensors file"
        ) from error
    state = _plain_keys(tensors, file)
    rank = _rank(state, file)
    return LoraFile(state, rank, _alpha(metadata, rank, file), metadata)


def save_lora(
    path: str | Path,
    state: dict[str, Tensor],
    rank: int,
    alpha: float,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write an adapter under the published key names, with rank and alpha as metadata.

    Alpha is also written in the form that diffusers reads. ``path`` is replaced whole.
    """
    file = Path(path)
    layers = sorted({name.split(".lora_")[0] for name in state})
    theirs = {"r": rank, "lora_alpha": alpha, "target_modules": layers}
    entries = {
        **(metadata or {}),
        "format": "pt",
        "rank": str(rank),
        "alpha": repr(float(alpha)),
        _DIFFUSERS_METADATA: json.dumps({_PREFIX + key: value for key, value in theirs.items()}),
    }
    tensors = {_PREFIX + k: v.detach().cpu().contiguous() for k, v in sorted(state.items())}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{file.name}.part")
    save_file(tensors, temporary, metadata=entries)
    temporary.chmod(0o644)
    temporary.replace(file)


def attach_lora(transformer: HeliosTransformer, lora: LoraFile, name: str = "camera") -> None:
    """Add ``lora`` beside the base weights, active and without gradients.

    An adapter of that name is replaced.

    Raises:
        WeightsError: layers or shapes are not those of ``transformer``.
    """
    _check_fits(transformer, lora)
    _inject(transformer, name, lora.layers, lora.rank, lora.alpha)
    for layer, module in _adapted(transformer, name):
        for side in "AB":
            weight = _weight(module, side, name)
            with torch.no_grad():
                weight.copy_(lora.state[f"{layer}.lora_{side}.weight"])
            weight.requires_grad_(False)


def new_lora(
    transformer: HeliosTransformer,
    rank: int = 32,
    alpha: float | None = None,
    seed: int = 0,
    name: str = "camera",
) -> list[nn.Parameter]:
    """Add a fresh, active adapter for training and return its float32 parameters.

    It sits on the self-attention layers of every block. A is Kaiming-uniform from ``seed``, B zero,
    so that training starts from the base model. Alpha is the rank unless given.
    """
    layers = [
        f"blocks.{block}.attn1.{target}"
        for block in range(len(transformer.blocks))
        for target in TARGETS
    ]
    _inject(transformer, name, layers, rank, float(rank if alpha is None else alpha))
    parameters = []
    for layer, module in _adapted(transformer, name):
        for side in "AB":
            weight = _weight(module, side, name)
            weight.data = weight.data.float()
            with torch.no_grad():
                weight.copy_(_start(weight, side, seeds.generator(seed, "lora", layer)))
            weight.requires_grad_(True)
            parameters.append(weight)
    return parameters


def lora_state(transformer: HeliosTransformer, name: str = "camera") -> dict[str, Tensor]:
    """The adapter's tensors, float32 on the CPU, keyed as in ``LoraFile.state``."""
    return {
        f"{layer}.lora_{side}.weight": _weight(module, side, name).detach().float().cpu().clone()
        for layer, module in _adapted(transformer, name)
        for side in "AB"
    }


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
        now = [] if module.disable_adapters else list(module.active_adapters)
        if (name in now) == active:
            continue
        wanted = [*now, name] if active else [other for other in now if other != name]
        flags = [(p, p.requires_grad) for p in module.parameters()]
        if wanted:
            module.enable_adapters(True)
            module.set_adapter(wanted)
        else:
            module.enable_adapters(False)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _inject(
    transformer: HeliosTransformer, name: str, layers: list[str], rank: int, alpha: float
) -> None:
    if name in getattr(transformer, "peft_config", {}):
        transformer.delete_adapters(name)
    flags = {id(p): p.requires_grad for p in transformer.parameters()}
    others = _active_names(transformer)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # Several adapters side by side are meant; PEFT warns of them.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        inject_adapter_in_model(config, transformer, adapter_name=name)
    transformer._hf_peft_config_loaded = True
    for other in others:
        set_lora_active(transformer, other, True)
    set_lora_active(transformer, name, True)
    for parameter in transformer.parameters():
        if id(parameter) in flags:
            parameter.requires_grad_(flags[id(parameter)])


def _active_names(transformer: HeliosTransformer) -> list[str]:
    for module in transformer.modules():
        if isinstance(module, LoraLinear):
            return [] if module.disable_adapters else list(module.active_adapters)
    return []


def _adapted(transformer: HeliosTransformer, name: str) -> list[tuple[str, LoraLinear]]:
    """Layers that carry adapter ``name``."""
    found = [
        (layer, module)
        for layer, module in transformer.named_modules()
        if isinstance(module, LoraLinear) and name in module.lora_A
    ]
    if not found:
        attached = ", ".join(getattr(transformer, "peft_config", {})) or "none"
        raise WeightsError(
            f"no adapter named {name!r} is attached (there is: {attached}); attach one with "
            "attach_lora or new_lora first"
        )
    return found


def _weight(module: LoraLinear, side: str, name: str) -> nn.Parameter:
    weight: nn.Parameter = getattr(module, f"lora_{side}")[name].weight
    return weight


def _start(weight: Tensor, side: str, source: torch.Generator) -> Tensor:
    """Initial values: Kaiming-uniform with slope sqrt(5) for A, zero for B."""
    if side == "B":
        return torch.zeros_like(weight)
    bound = 1.0 / math.sqrt(weight.shape[1])
    return (torch.rand(weight.shape, generator=source) * 2 - 1) * bound


def _plain_keys(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Keys without prefix and adapter name."""
    if not tensors:
        raise WeightsError(f"{file} holds no tensors; give a LoRA in the PEFT layout")
    state = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key.removeprefix(_PREFIX))
        if match is None or tensor.ndim != 2:
            raise WeightsError(
                f"{file} holds the tensor {key!r}, which is not LoRA in the PEFT layout "
                "(LAYER.lora_A.weight, LAYER.lora_B.weight); give such a file"
            )
        state[f"{match['layer']}.lora_{match['side']}.weight"] = tensor
    return state


def _rank(state: dict[str, Tensor], file: Path) -> int:
    layers = {name.split(".lora_")[0] for name in state}
    for layer in sorted(layers):
        if any(f"{layer}.lora_{side}.weight" not in state for side in "AB"):
            raise WeightsError(
                f"{file} has only one of lora_A and lora_B for {layer}; get a complete file"
            )
    ranks = {v.shape[0] if ".lora_A." in k else v.shape[1] for k, v in state.items()}
    if len(ranks) > 1:
        raise WeightsError(
            f"{file} mixes the ranks {sorted(ranks)}, but one rank for all layers is needed; "
            "export the adapter with a single rank"
        )
    return ranks.pop()


def _alpha(metadata: dict[str, str], rank: int, file: Path) -> float:
    try:
        if "alpha" in metadata:
            return float(metadata["alpha"])
        theirs = json.loads(metadata.get(_DIFFUSERS_METADATA, "{}"))
        return float(theirs.get(f"{_PREFIX}lora_alpha", theirs.get("lora_alpha", rank)))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"the metadata of {file} has no usable alpha ({error}); write it as a number"
        ) from error


def _check_fits(transformer: HeliosTransformer, lora: LoraFile) -> None:
    modules = dict(transformer.named_modules())
    for layer in lora.layers:
        module = modules.get(layer)
        if isinstance(module, LoraLinear):
            module = module.get_base_layer()
        if not isinstance(module, nn.Linear):
            raise WeightsError(
                f"the adapter changes {layer}, which this transformer does not have as a linear "
                "layer; it belongs to another model, so use one trained for this one"
            )
        down, up = (lora.state[f"{layer}.lora_{side}.weight"] for side in "AB")
        ours, given = (module.in_features, module.out_features), (down.shape[1], up.shape[0])
        if ours != given:
            raise WeightsError(
                f"the adapter's {layer} maps {given[0]} to {given[1]} channels, but this "
                f"transformer's maps {ours[0]} to {ours[1]}; use an adapter trained for this model"
            )
