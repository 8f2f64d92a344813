"""Published models that are not on this machine yet: folders of their configurations alone, from
which runs are planned as from the whole ones. Nothing is downloaded. Imports no torch.

The networks are those of the released repositories: Wan 2.1's autoencoder and the 14B denoiser,
whose classes have the published sizes as defaults, and UMT5-XXL; all three are stored in float32.
Variants differ in their schedulers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flythrough.models.catalog import ModelFolder, find_model, read_defaults
from flythrough.models.hub import find_local
from flythrough.models.parts import LAYOUTS
from flythrough.models.published import ENTRIES, Entry

Config = dict[str, Any]

STORED = "F32"
"""What the files of the models below hold, by safetensors' name."""

_UMT5_XXL: Config = {
    "model_type": "umt5",
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}


def _helios(index: Config, scheduler: Config) -> dict[str, Config]:
    return {
        "": index,
        "transformer": {"_class_name": "HeliosTransformer3DModel"},
        "vae": {"_class_name": "AutoencoderKLWan"},
        "text_encoder": _UMT5_XXL,
        "scheduler": {"use_dynamic_shifting": True, **scheduler},
    }


_CONFIGURATIONS: dict[str, dict[str, Config]] = {
    "helios-base": _helios(
        {"_class_name": "HeliosPipeline"},
        {"_class_name": "HeliosScheduler", "stages": 1, "stage_range": [0, 1]},
    ),
    "helios-mid": _helios(
        {"_class_name": "HeliosPyramidPipeline", "is_cfg_zero_star": True},
        {"_class_name": "HeliosScheduler", "stages": 3},
    ),
    "helios-distilled": _helios(
        {"_class_name": "HeliosPyramidPipeline", "is_distilled": True, "is_cfg_zero_star": False},
        {"_class_name": "HeliosDMDScheduler", "stages": 3, "time_shift_type": "linear"},
    ),
}


@contextmanager
def found_or_foreseen(name_or_folder: str) -> Iterator[ModelFolder]:
    """The model as ``catalog.find_model`` finds it; for a published one that is not (wholly) here,
    a folder of its configurations that exists within the block, with ``stored_as`` set.

    Raises:
        WeightsError: no such model, or a folder that lacks a part.
    """
    entry = _absent(name_or_folder)
    if entry is None:
        yield find_model(name_or_folder)
        return
    with TemporaryDirectory(prefix="flythrough-") as place:
        folder = Path(place)
        for part, config in _CONFIGURATIONS[entry.name].items():
            (folder / part).mkdir(exist_ok=True)
            name = LAYOUTS[part].config if part else "model_index.json"
            (folder / part / name).write_text(json.dumps(config))
        yield ModelFolder(entry.name, folder, read_defaults(folder), stored_as=STORED)


def _absent(name: str) -> Entry | None:
    """The published model that ``name`` means, if its configuration is known here while its files
    are not all on this machine; as in ``catalog.find_model`` a folder of that name comes first."""
    if name not in _CONFIGURATIONS or Path(name).expanduser().is_dir():
        return None
    local = find_local(ENTRIES[name])
    return ENTRIES[name] if local is None or not local.complete else None
