"""What describing frames takes, known before the captioner is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.accounting import Need
from flythrough.models.captioner import CaptionSettings
from flythrough.models.captioner_folder import CaptionerFolder
from flythrough.models.headers import FLOATS, read_header
from flythrough.models.needs import PartNeed
from flythrough.models.parts import weights_of

_WORDS = 512
"""Tokens of instructions and wish, counted generously."""


def captioner_need(folder: CaptionerFolder, dtype: torch.dtype) -> tuple[PartNeed, Need]:
    """Weights of Qwen2.5-VL in ``dtype``, which are never streamed, and what one answer takes.

    The class of transformers cannot be run on shapes alone, so the answer is counted from the
    configuration: one feed-forward at a time over pictures and words, keys and values of all
    layers, and the patches.

    Raises:
        WeightsError: configuration or weights cannot be read.
    """
    numbers = 0
    for file in weights_of(folder.path, "model").files:
        tensors = read_header(file).values()
        numbers += sum(tensor.count for tensor in tensors if tensor.dtype in FLOATS)
    weights, use = numbers * dtype.itemsize, CaptionSettings()
    text, vision = _configuration(folder.path)
    cells = use.frames * use.most_cells
    patches = cells * vision.spatial_merge_size**2
    tokens = cells + _WORDS + use.tokens
    kept = 2 * text.num_hidden_layers * text.num_key_value_heads
    kept *= text.hidden_size // text.num_attention_heads * tokens
    rows = max(
        tokens * (6 * text.hidden_size + 3 * text.intermediate_size),
        patches * (6 * vision.hidden_size + 3 * vision.intermediate_size),
    )
    shown = patches * 3 * 2 * vision.patch_size**2
    peak = (kept + rows) * dtype.itemsize + shown * torch.float32.itemsize
    return PartNeed(weights, weights), Need(peak, 2.0 * numbers * tokens)


def _configuration(folder: Path) -> tuple[Any, Any]:
    """Those of words and of pictures, from the flat layout of published files too."""
    from transformers import Qwen2_5_VLConfig

    try:
        config: Any = Qwen2_5_VLConfig.from_dict(read_json(folder / "config.json"))
        return config.text_config, config.vision_config
    except Exception as error:  # the library raises many kinds for one broken file
        raise WeightsError(
            f"The configuration of the captioner in {folder} cannot be used "
            f"({type(error).__name__}); download it again."
        ) from error
