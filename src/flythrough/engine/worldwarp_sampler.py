"""What a worldwarp rollout keeps becomes how its chunks are made, and who words their prompts."""

from __future__ import annotations

import torch

from flythrough.conditioning.noise_field import FieldSettings
from flythrough.generators.worldwarp import WorldWarpSettings
from flythrough.models.captioner import Captioner, QwenCaptioner
from flythrough.models.captioner_folder import find_captioner
from flythrough.models.catalog import ModelFolder
from flythrough.models.loading import Placement
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.guidance import Guidance


def worldwarp_sampler(spec: RolloutSpec, folder: ModelFolder) -> WorldWarpSettings:
    """How the chunks of a worldwarp rollout are made; its settings were checked before."""
    values = spec.settings
    return WorldWarpSettings(
        noise_field=FieldSettings(
            strength=float(values["strength"]),
            erosion=int(values["erosion"]),
            variation=values.get("noise_field", "both"),
        ),
        steps=int(values["steps"][0]),
        shift=float(values["shift"]),
        guidance=Guidance(scale=float(values["guidance"])),
        blend_chunks=int(values["blend_chunks"]),
        max_sequence_length=folder.defaults.max_sequence_length,
    )


def build_captioner(
    spec: RolloutSpec, device: torch.device, dtype: torch.dtype, placement: Placement
) -> Captioner | None:
    """What words the prompts of a rollout's chunks, if anything does; outside placement resident
    its weights wait in host memory.

    Raises:
        WeightsError: it is not on this machine, or cannot be loaded.
    """
    name = spec.settings.get("captioner")
    if name is None:
        return None
    parked = placement != "resident" and device.type != "cpu"
    return QwenCaptioner(find_captioner(str(name)), device, dtype, parked=parked)
