"""A stage's result as a model folder: merged weights, its scheduler, and parts it did not train.

The folder runs with ``generate --model`` and is what the next stage starts from.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from flythrough.disk import writing
from flythrough.errors import WeightsError
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.helios.networks import merged_state
from flythrough.training.helios.recipe import Recipe
from flythrough.training.nano_files import write_json

_PARTS = ("vae", "text_encoder", "tokenizer", "geometry", "taehv")


def write_model(
    folder: Path,
    network: HeliosTransformer,
    adapter: str,
    recipe: Recipe,
    base: Path,
    *,
    keep: bool,
) -> None:
    """Write ``folder`` with ``adapter`` merged into ``network``; parts that were not trained are
    linked, or copied, from ``base``. Every process must take part; that with ``keep`` writes."""
    state = merged_state(network, adapter, keep=keep)
    if not keep:
        return
    with torch.device("meta"):
        plain = HeliosTransformer.from_config(dict(network.config))
    plain.load_state_dict(state, assign=True)
    with writing(folder):
        plain.save_pretrained(folder / "transformer", safe_serialization=True)
        for part in _PARTS:
            if (base / part).is_dir():
                shutil.copytree(base / part, folder / part, copy_function=_link, dirs_exist_ok=True)
        write_json(folder / "scheduler" / "scheduler_config.json", scheduler_config(recipe))
        write_json(folder / "model_index.json", _index(recipe, base))
        write_json(folder / "flythrough.json", _description(recipe, base, folder.name))


def scheduler_config(recipe: Recipe) -> dict[str, Any]:
    """What samples the stage's model: UniPC at one size, UniPC in the pyramid, or few steps."""
    few = recipe.stage in ("3a", "3b")
    stages = 1 if recipe.stage == "1" else 3
    return {
        "_class_name": "HeliosDMDScheduler" if few else "HeliosScheduler",
        "num_train_timesteps": 1000,
        "shift": 1.0,
        "stages": stages,
        "stage_range": [0, 1] if stages == 1 else [0, 1 / 3, 2 / 3, 1],
        "gamma": 1 / 3,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": True,
        "time_shift_type": recipe.validation.shift,
        "scheduler_type": "dmd" if few else "unipc",
    }


def training_pyramid(recipe: Recipe) -> PyramidConfig:
    """The noise levels of training: in few-step stages those of the sampler, with its shift."""
    shift = recipe.flow.shift if recipe.stage in ("1", "2") else recipe.validation.shift
    if shift == "off":
        return PyramidConfig()
    return PyramidConfig(use_dynamic_shifting=True, time_shift_type=shift)


def _index(recipe: Recipe, base: Path) -> dict[str, Any]:
    few = recipe.stage in ("3a", "3b")
    known = _read(base / "model_index.json")
    parts = ("text_encoder", "tokenizer", "vae")
    kept: dict[str, Any] = {part: known[part] for part in parts if part in known}
    return {
        **kept,
        "_class_name": "HeliosPipeline" if recipe.stage == "1" else "HeliosPyramidPipeline",
        "is_distilled": few,
        "is_cfg_zero_star": recipe.stage == "2",
        "scheduler": ["diffusers", scheduler_config(recipe)["_class_name"]],
        "transformer": ["diffusers", "HeliosTransformer3DModel"],
    }


def _description(recipe: Recipe, base: Path, name: str) -> dict[str, Any]:
    """``flythrough.json``: what the base says of size and prompts, and how the stage is sampled."""
    known = _read(base / "flythrough.json").get("defaults", {})
    height, width = recipe.run.size
    sampled = {
        "height": height,
        "width": width,
        "max_sequence_length": recipe.text.max_length,
        "steps": list(recipe.validation.steps),
        "guidance_scale": recipe.validation.guidance,
        "amplify_first_chunk": recipe.stage in ("3a", "3b"),
        "zero_star": recipe.stage == "2" and recipe.validation.guidance > 1,
        "zero_steps": 1 if recipe.stage == "2" and recipe.validation.guidance > 1 else 0,
    }
    return {"format": 1, "name": name, "defaults": {**known, **sampled}}


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); restore the file.") from error
    return values


def _link(source: str, target: str) -> str:
    """A hard link where the file system allows, else a copy. What ``source`` points to is meant:
    folders of a model hub hold links."""
    real, there = Path(source).resolve(), Path(target)
    if there.exists() and there.samefile(real):
        return target
    there.unlink(missing_ok=True)
    try:
        os.link(real, there)
    except OSError:
        shutil.copy2(real, there)
    return target
