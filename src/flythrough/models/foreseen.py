"""Published models that are not on this machine yet: folders of their configurations alone, from
which runs are planned as from the whole ones. Nothing is downloaded. Imports no torch.

The networks are those of the released repositories: Wan 2.1's autoencoder and the 14B denoiser,
whose classes have the published sizes as defaults, and UMT5-XXL; all three are stored in float32.
Variants differ in their schedulers. Depth networks are Depth Pro and Depth Anything V2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flythrough.models.catalog import ModelFolder, find_model, read_defaults
from flythrough.models.hub import cache_folder, find_local
from flythrough.models.licences import licence_of_entry
from flythrough.models.monocular_files import MonocularFolder, find_monocular, meaning_of
from flythrough.models.parts import LAYOUTS
from flythrough.models.published import ENTRIES, MONOCULAR_NAMES, Entry

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


def _depth_anything(
    width: int, layers: int, heads: int, neck: list[int], fusion: int, outputs: list[int]
) -> Config:
    backbone = {
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": outputs,
        "reshape_hidden_states": False,
    }
    return {
        "model_type": "depth_anything",
        "backbone_config": backbone,
        "reassemble_hidden_size": width,
        "neck_hidden_sizes": neck,
        "fusion_hidden_size": fusion,
    }


_SMALL = _depth_anything(384, 12, 6, [48, 96, 192, 384], 64, [3, 6, 9, 12])
_METRIC = {**_SMALL, "depth_estimation_type": "metric"}
_VIT_LARGE: Config = {
    "model_type": "dinov2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 16,
}
_DEPTH_CONFIGURATIONS: dict[str, Config] = {
    "depth-pro": {
        "model_type": "depth_pro",
        "use_fov_model": True,
        **dict.fromkeys(
            ("image_model_config", "patch_model_config", "fov_model_config"), _VIT_LARGE
        ),
    },
    "depth-anything": _SMALL,
    "depth-anything-base": _depth_anything(768, 12, 12, [96, 192, 384, 768], 128, [3, 6, 9, 12]),
    "depth-anything-large": _depth_anything(
        1024, 24, 16, [256, 512, 1024, 1024], 256, [5, 12, 18, 24]
    ),
    "depth-anything-metric": _METRIC,
    "depth-anything-metric-outdoor": _METRIC,
}
"""As the repositories of ``published`` state them."""


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


def absent_depth(name: str) -> Entry | None:
    """The published monocular depth network that ``name`` means, if it is not (wholly) here."""
    return _lacking(ENTRIES[name]) if name in MONOCULAR_NAMES else None


def planned_monocular(name_or_folder: str) -> MonocularFolder:
    """The network as ``monocular_files.find_monocular`` finds it; for a published one that is not
    here, its configuration, with a path where nothing lies.

    Raises:
        WeightsError: no such network, or a folder that cannot be used.
    """
    entry = absent_depth(name_or_folder)
    if entry is None:
        return find_monocular(name_or_folder)
    config = _DEPTH_CONFIGURATIONS[entry.name]
    place = cache_folder(entry)
    return MonocularFolder(entry.name, place, config, meaning_of(config), licence_of_entry(entry))


def _absent(name: str) -> Entry | None:
    """The published model that ``name`` means, if its configuration is known here while its files
    are not all on this machine; as in ``catalog.find_model`` a folder of that name comes first."""
    if name not in _CONFIGURATIONS or Path(name).expanduser().is_dir():
        return None
    return _lacking(ENTRIES[name])


def _lacking(entry: Entry) -> Entry | None:
    """``entry`` if its files are not all on this machine."""
    local = find_local(entry)
    return entry if local is None or not local.complete else None
