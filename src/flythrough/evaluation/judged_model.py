"""The model whose videos are judged: checked early, and named in every digest and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flythrough.engine.files import check_lora, named_files
from flythrough.engine.geometry_source import check_geometry, estimates_anything
from flythrough.engine.options import check_device
from flythrough.engine.worldwarp_options import check_denoiser
from flythrough.errors import InputError
from flythrough.evaluation.truth import EXACT
from flythrough.models.catalog import ModelFolder, find_model
from flythrough.rollout.spec import Method


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What the command line says about the model. ``lora`` is the adapter of rows that use one;
    ``geometry`` exact (the photo's true depth), or what ``--geometry`` of generate takes."""

    model: str = "nano"
    lora: str = "default"
    geometry: str = EXACT
    device: str = "auto"


def check_model(choice: ModelChoice, method: Method = "warp-as-history") -> ModelFolder:
    """Refuse what cannot work with ``method`` before anything is rendered or loaded.

    Raises:
        InputError: an unknown device, an ST-Diff alone, or a geometry that cannot serve several
            clips.
        WeightsError: there is no such model, adapter or network.
    """
    check_device(choice.device)
    model = find_model(choice.model)
    check_denoiser(method, model, "name a folder whose transformer is a Helios")
    if method == "worldwarp" and choice.lora != "default":
        raise InputError(f"--lora {choice.lora} has no effect with method worldwarp; drop it.")
    check_lora(choice.lora)
    geometry = choice.geometry
    if geometry not in (EXACT, "flat"):
        if not estimates_anything(geometry):
            raise InputError(
                f"--geometry {geometry} cannot serve several worlds; give exact, default, flat, or "
                "a depth network by name or folder."
            )
        check_geometry(geometry, model, None)
    return model


def model_configuration(choice: ModelChoice, model: ModelFolder) -> dict[str, Any]:
    """What figures of its videos depend on."""
    return {
        "model": model.name,
        "model_digest": model.digest(),
        "lora": choice.lora,
        "geometry": choice.geometry,
        "steps": list(model.defaults.steps),
        "warp_stages": model.defaults.warp_stages,
        **named_files(choice.geometry, choice.lora),
    }
