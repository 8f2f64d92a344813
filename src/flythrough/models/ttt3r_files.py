"""Weights of the streaming geometry network: ``model.safetensors`` beside ``config.json``."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.disk import replacing
from flythrough.errors import WeightsError
from flythrough.models.geometry_config import config_to_dict
from flythrough.models.parts import weights_of
from flythrough.models.ttt3r import TTT3R
from flythrough.models.ttt3r_folder import CLASS_NAME, find_streaming

_WRAPPER = "module."
_STATE, _FRAME = "dec_blocks_state.", "dec_blocks."


def load_ttt3r(folder: str | Path, *, device: torch.device | str = "cpu") -> TTT3R:
    """The network of a folder, float32, in evaluation mode and without gradients.

    A checkpoint without a state decoder (one that starts training) copies the frames' decoder.

    Raises:
        WeightsError: files are missing or unreadable, or do not fit the configuration.
    """
    found = find_streaming(folder)
    state = _read(found.path)
    if not any(key.startswith(_STATE) for key in state):
        copies = {k.replace(_FRAME, _STATE, 1): v for k, v in state.items() if k.startswith(_FRAME)}
        state |= copies
    with torch.device("meta"):
        net = TTT3R(found.config)
    state = _with_aliases(net, state)
    _check_fit(net, state, found.path)
    net = net.to_empty(device=device)
    net.load_state_dict({k: v.float() for k, v in state.items()})
    return net.eval().requires_grad_(False)


def save_ttt3r(net: TTT3R, folder: str | Path, dtype: torch.dtype = torch.float32) -> None:
    """Write configuration and weights; tensors with two names are stored under the first."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in net.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            kept[name] = value.detach().to("cpu", dtype).contiguous()
    with replacing(target / "model.safetensors") as partial:
        save_file(kept, partial, metadata={"format": "pt"})
        partial.chmod(0o644)
    values = {"_class_name": CLASS_NAME, **config_to_dict(net.config)}
    (target / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def _read(folder: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = {}
        for file in weights_of(folder, "model").files:
            state |= load_file(file)
    except (OSError, SafetensorError, ValueError) as error:
        raise WeightsError(
            f"The weights in {folder} cannot be read ({error}); convert or download them again."
        ) from error
    if all(key.startswith(_WRAPPER) for key in state):
        state = {key.removeprefix(_WRAPPER): value for key, value in state.items()}
    return state


def _with_aliases(net: TTT3R, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every name of a tensor that has several, as soon as one of them is there."""
    groups: dict[int, list[str]] = {}
    for name, value in net.state_dict(keep_vars=True).items():
        groups.setdefault(id(value), []).append(name)
    known = dict(state)
    for names in groups.values():
        stored = next((name for name in names if name in state), None)
        if stored is not None:
            known |= {name: state[stored] for name in names if name not in state}
    return known


def _check_fit(net: TTT3R, state: dict[str, Tensor], folder: Path) -> None:
    wanted = net.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unknown = sorted(state.keys() - wanted.keys())
    shapes = sorted(k for k in wanted.keys() & state.keys() if wanted[k].shape != state[k].shape)
    for fault, keys in (("lack", missing), ("have unknown", unknown), ("have misshaped", shapes)):
        if keys:
            raise WeightsError(
                f"The geometry weights in {folder} {fault} {', '.join(keys[:4])} "
                f"({len(keys)} in all) for their configuration; use files of one network."
            )
