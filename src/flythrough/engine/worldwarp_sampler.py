"""What a worldwarp rollout keeps becomes how its chunks are made."""

from __future__ import annotations

from flythrough.conditioning.noise_field import FieldSettings
from flythrough.generators.worldwarp import WorldWarpSettings
from flythrough.models.catalog import ModelFolder
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
