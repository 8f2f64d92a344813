"""What a worldwarp rollout keeps becomes how its chunks are made, and who words their prompts."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

from flythrough.conditioning.noise_field import FieldSettings
from flythrough.engine.memory_plan import SLACK
from flythrough.engine.placement import available_host_bytes, free_bytes
from flythrough.engine.run_needs import captioner_of
from flythrough.errors import InputError
from flythrough.generators.worldwarp import WorldWarpSettings
from flythrough.models.captioner import Captioner, QwenCaptioner
from flythrough.models.captioner_needs import captioner_need
from flythrough.models.catalog import ModelFolder
from flythrough.models.loading import Placement
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.guidance import Guidance

_GIB = 2**30


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
    spec: RolloutSpec,
    device: torch.device,
    dtype: torch.dtype,
    placement: Placement | None,
    notify: Callable[[str], None],
) -> Captioner | None:
    """What words the prompts of a rollout's chunks, if anything does.

    Its weights wait in host memory outside ``placement`` resident, where that is unknown (None: the
    model was loaded before), and where a GPU has no room left for them.

    Raises:
        WeightsError: it is not on this machine, or cannot be loaded.
        InputError: host memory does not hold it.
    """
    folder = captioner_of(spec)
    if folder is None:
        return None
    weights, work = captioner_need(folder, dtype)
    gc.collect()  # an earlier captioner may lie in a cycle
    host = available_host_bytes()
    if weights.whole > host:  # the weights of every device are read into host memory first
        raise InputError(
            f"The captioner {folder.name} needs {weights.whole / _GIB:.1f} GiB of host memory, but "
            f"{host / _GIB:.1f} GiB are free; close other programs, or start without --caption."
        )
    parked = device.type != "cpu" and placement != "resident"
    if device.type == "cuda" and not parked:
        free = free_bytes(device)
        parked = (weights.whole + work.peak_bytes) * SLACK > free
        if parked:
            notify(
                f"the captioner waits in host memory between chunks: it needs "
                f"{weights.whole / _GIB:.1f} GiB and {free / _GIB:.1f} GiB are free on {device}."
            )
    return QwenCaptioner(folder, device, dtype, parked=parked)
