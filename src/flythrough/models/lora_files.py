"""LoRA files: read in every published layout, written under the published key names.

Only safetensors files are read; those written here carry rank and alpha as metadata.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.lora_layouts import adapter_files, alpha_name, matrix_name

_PREFIX = "transformer."
_DIFFUSERS_METADATA = "lora_adapter_metadata"
_PICKLED = {".pt", ".pth", ".bin", ".ckpt"}


@dataclass(frozen=True, eq=False)
class LoraFile:
    """An adapter in memory.

    Attributes:
        state: ``LAYER.lora_A.weight`` [rank,in] and ``LAYER.lora_B.weight`` [out,rank] by the
            denoiser's layer names, without prefix; kohya's have underscores instead of dots.
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
    """Read an adapter: a ``.safetensors`` file, or a folder as PEFT writes it.

    The layouts are those of ``models.lora_layouts``. Alpha comes from ``alpha`` tensors, else from
    the file's metadata, else from ``adapter_config.json`` beside it; where none states it, it
    equals the rank, as in the published files.

    Raises:
        WeightsError: a pickled file, no file, an unreadable one, keys that are no LoRA, or ranks
            or alphas that differ between layers.
    """
    file, config = adapter_files(Path(path))
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
    alphas = {layer: tensors.pop(key) for key in list(tensors) if (layer := alpha_name(key))}
    state = _plain_keys(tensors, file)
    rank = _rank(state, file)
    alpha = _alpha_of_tensors(alphas, state, rank, file)
    if alpha is None:
        alpha = _alpha(metadata, config, rank, file)
    return LoraFile(state, rank, alpha, metadata)


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


def _plain_keys(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Keys without prefix and adapter name."""
    if not tensors:
        raise WeightsError(f"{file} holds no tensors; give a LoRA in the PEFT layout")
    state = {}
    for key, tensor in tensors.items():
        found = matrix_name(key)
        if found is None or tensor.ndim != 2:
            raise WeightsError(
                f"{file} holds the tensor {key!r}, which is not LoRA in the PEFT layout "
                "(LAYER.lora_A.weight, LAYER.lora_B.weight) or in kohya's; give such a file"
            )
        layer, side = found
        state[f"{layer}.lora_{side}.weight"] = tensor
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


def _alpha_of_tensors(
    alphas: dict[str, Tensor], state: dict[str, Tensor], rank: int, file: Path
) -> float | None:
    """The one alpha of all layers, from kohya's ``LAYER.alpha``; None without such tensors."""
    if not alphas:
        return None
    layers = {name.split(".lora_")[0] for name in state}
    for layer, alpha in alphas.items():
        if layer not in layers or alpha.numel() != 1:
            raise WeightsError(
                f"{file} has an alpha for {layer} that is not one number of a layer with LoRA "
                "matrices; get a complete file"
            )
    values = {float(alphas[layer]) if layer in alphas else float(rank) for layer in layers}
    if len(values) > 1:
        raise WeightsError(
            f"{file} mixes the alphas {sorted(values)}, but one alpha for all layers is needed; "
            "export the adapter with a single alpha"
        )
    return values.pop()


def _alpha(metadata: dict[str, str], config: Path | None, rank: int, file: Path) -> float:
    try:
        if "alpha" in metadata:
            return float(metadata["alpha"])
        theirs = json.loads(metadata.get(_DIFFUSERS_METADATA, "{}"))
        stated = {key.removeprefix(_PREFIX): value for key, value in theirs.items()}
        if not stated and config is not None:
            stated = read_json(config)
        return _alpha_of_config(stated, rank, file)
    except WeightsError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"the metadata of {file} has no usable alpha ({error}); write it as a number"
        ) from error


def _alpha_of_config(stated: dict[str, Any], rank: int, file: Path) -> float:
    """Alpha as PEFT's configuration means it; rank-stabilised LoRA divides by the rank's root."""
    alpha = float(stated.get("lora_alpha", rank))
    if any(float(other) != alpha for other in (stated.get("alpha_pattern") or {}).values()):
        raise WeightsError(
            f"{file} mixes alphas (alpha_pattern), but one alpha for all layers is needed; export "
            "the adapter with a single alpha"
        )
    return alpha * math.sqrt(rank) if stated.get("use_rslora") else alpha
