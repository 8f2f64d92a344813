"""The recorded tiny model as a folder in the published layout, loaded like any other."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from published_draws import GOLDEN

from flythrough.models.catalog import find_model
from flythrough.models.loading import LoadedModel, load_model

_NETWORKS = GOLDEN / "transformer" / "model"
_PARTS = {
    "transformer": _NETWORKS / "transformer",
    "text_encoder": _NETWORKS / "text_encoder",
    "tokenizer": _NETWORKS / "tokenizer",
    "vae": GOLDEN / "history" / "vae",
}


@cache
def published_model() -> LoadedModel:
    """The parts lie with the tests that first needed them; together they are one model."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, source in _PARTS.items():
            shutil.copytree(source, folder / part)
        scheduler = folder / "scheduler"
        scheduler.mkdir()
        shutil.copy(GOLDEN / "sampler" / "scheduler_config.json", scheduler)
        return load_model(find_model(name), torch.device("cpu"), torch.float32)
