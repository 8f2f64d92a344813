"""Pi3X folders: ``config.json`` and safetensors weights, in one file or in shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.errors import InputError, WeightsError
from flythrough.models.geometry_config import config_from_dict, config_to_dict
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import Pi3XConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CLASS_NAME = "Pi3X"

_MULTIMODAL = ("depth_encoder.", "depth_emb", "ray_embed.", "pose_inject_blk.")
_CONSTANTS = ("image_mean", "image_std")  # some files leave them out


def save_pi3x(
    net: Pi3X,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    shard_bytes: int = 14_000_000,
) -> None:
    """Write configuration and weights (in ``dtype``) to ``folder``, replacing older ones.

    Weights above ``shard_bytes`` are cut into numbered files with an index beside them, in the
    layout that Hugging Face tools read.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("model*.safetensors*"):
        old.unlink()
    state = {k: v.detach().to("cpu", dtype).contiguous() for k, v in net.state_dict().items()}
    shards = _shards(state, shard_bytes)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS_FILE
        if len(shards) > 1:
            name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, target / name, metadata={"format": "pt"})
        (target / name).chmod(0o644)
        places |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        total = sum(v.numel() * v.element_size() for v in state.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (target / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")
    values = {"_class_name": CLASS_NAME, **config_to_dict(net.config)}
    (target / CONFIG_FILE).write_text(json.dumps(values, indent=2) + "\n")


def load_pi3x(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    multimodal: bool | None = None,
) -> Pi3X:
    """Read a geometry folder, in evaluation mode, float32 and without gradients.

    A folder without ``config.json`` is taken for the published network. ``multimodal=False`` leaves
    out the parts that read priors (a quarter of the published weights).

    Raises:
        WeightsError: files are missing or unreadable, or do not fit the configuration.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise WeightsError(
            f"There is no geometry folder {folder}; give a folder with {CONFIG_FILE} and "
            f"{WEIGHTS_FILE}."
        )
    config = _read_config(folder / CONFIG_FILE)
    state = _read_weights(folder)
    if multimodal is not None and multimodal != config.multimodal:
        if multimodal:
            raise WeightsError(
                f"The geometry network in {folder} has no parts that read priors; use a multimodal "
                "one or go without priors."
            )
        config = config_from_dict(Pi3XConfig, {**config_to_dict(config), "multimodal": False})
    if not config.multimodal:
        state = {k: v for k, v in state.items() if not k.startswith(_MULTIMODAL)}
    with torch.device("meta"):
        net = Pi3X(config)
    _check_fit(net, state, folder)
    net = net.to_empty(device=device)
    net.restore_constants()
    net.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)
    return net.eval().requires_grad_(False)


def _shards(state: dict[str, Tensor], limit: int) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for key, value in state.items():
        needed = value.numel() * value.element_size()
        if shards[-1] and size + needed > limit:
            shards.append({})
            size = 0
        shards[-1][key] = value
        size += needed
    return shards


def _read_config(file: Path) -> Pi3XConfig:
    if not file.is_file():
        return Pi3XConfig()
    try:
        values: dict[str, Any] = json.loads(file.read_text())
        name = values.get("_class_name", CLASS_NAME)
        if name != CLASS_NAME:
            raise WeightsError(
                f"{file} describes a {name}, but the geometry network must be a {CLASS_NAME}; "
                "point to another folder."
            )
        return config_from_dict(Pi3XConfig, values)
    except WeightsError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, InputError) as error:
        raise WeightsError(
            f"{file} is no geometry configuration ({error}); restore the file."
        ) from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / INDEX_FILE
    try:
        names = [WEIGHTS_FILE]
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        state: dict[str, Tensor] = {}
        for name in names:
            state |= load_file(folder / name)
        return state
    except OSError as error:
        raise WeightsError(
            f"The geometry folder {folder} lacks a weight file ({error}); download it again."
        ) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(
            f"The weights in {folder} cannot be read ({error}); download them again."
        ) from error


def _check_fit(net: Pi3X, state: dict[str, Tensor], folder: Path) -> None:
    wanted = net.state_dict()
    missing = sorted(wanted.keys() - state.keys() - set(_CONSTANTS))
    unknown = sorted(state.keys() - wanted.keys())
    shared = wanted.keys() & state.keys()
    shapes = sorted(k for k in shared if wanted[k].shape != state[k].shape)
    for fault, keys in (("lack", missing), ("have unknown", unknown), ("have misshaped", shapes)):
        if keys:
            raise WeightsError(
                f"The geometry weights in {folder} {fault} {', '.join(keys[:4])} "
                f"({len(keys)} in all) for their configuration; use files of one network."
            )
