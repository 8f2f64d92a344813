"""Training checkpoints in safetensors: weights, their average, Adam's moments, the step."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flythrough.errors import WeightsError
from flythrough.training.placing import placed

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def save_checkpoint(
    path: Path,
    parameters: Sequence[Tensor],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    spent: float,
) -> None:
    """Write everything a resumed run needs; the file appears whole or not at all."""
    tensors: dict[str, Tensor] = {}
    for i, (parameter, mean) in enumerate(zip(parameters, average, strict=True)):
        tensors[f"parameter.{i}"] = parameter.detach().contiguous().cpu()
        tensors[f"average.{i}"] = mean.contiguous().cpu()
        for key in _MOMENTS:
            value = optimizer.state.get(parameter, {}).get(key)
            if value is not None:
                tensors[f"{key}.{i}"] = value.detach().contiguous().cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    meta = {"state": json.dumps({"step": step, "spent": spent})}
    save_file(tensors, partial, metadata=meta)
    os.replace(partial, path)


def load_checkpoint(
    path: Path,
    parameters: Sequence[Tensor],
    average: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[int, float]:
    """Restore in place; returns (step, seconds spent).

    Raises:
        WeightsError: the file is unreadable or belongs to another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})["state"])
            keys = set(file.keys())
            for i, (parameter, mean) in enumerate(zip(parameters, average, strict=True)):
                saved = file.get_tensor(f"parameter.{i}")
                if saved.shape != parameter.shape:
                    raise WeightsError(
                        f"{path} holds shape {tuple(saved.shape)} where this model has "
                        f"{tuple(parameter.shape)}; resume with the settings of the first run."
                    )
                with torch.no_grad():
                    parameter.copy_(saved)
                    mean.copy_(file.get_tensor(f"average.{i}"))
                moments = {k: file.get_tensor(f"{k}.{i}") for k in _MOMENTS if f"{k}.{i}" in keys}
                if moments:
                    optimizer.state[parameter] = placed(moments, parameter)
    except (SafetensorError, KeyError, OSError) as error:
        raise WeightsError(
            f"{path} is not a training checkpoint ({error}); delete it to start anew."
        ) from error
    return int(state["step"]), float(state["spent"])
