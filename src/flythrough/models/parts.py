"""How the parts of a model folder are laid out, and which of their files are missing. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flythrough.disk import read_json
from flythrough.models.published import PIPELINE_PARTS

_VOCABULARIES = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json", "vocab.txt")
_BYTE_TOKENIZERS = {"ByT5Tokenizer", "ByT5TokenizerFast"}


@dataclass(frozen=True)
class Layout:
    """File names of a part: its configuration, and the stem of its weights ("" without weights)."""

    config: str = "config.json"
    weights: str = ""


LAYOUTS: dict[str, Layout] = {
    "transformer": Layout(weights="diffusion_pytorch_model"),
    "st_diff": Layout(weights="diffusion_pytorch_model"),
    "vae": Layout(weights="diffusion_pytorch_model"),
    "text_encoder": Layout(weights="model"),
    "tokenizer": Layout(config="tokenizer_config.json"),
    "scheduler": Layout(config="scheduler_config.json"),
    "geometry": Layout(weights="model"),
    "depth": Layout(weights="model"),
}


@dataclass(frozen=True)
class Weights:
    """Weight files of a part: those there, what is wrong, and the index (name to file) if any."""

    files: tuple[Path, ...]
    faults: tuple[str, ...] = ()
    index: dict[str, str] | None = None


def weights_of(folder: Path, stem: str) -> Weights:
    """One ``STEM.safetensors``, or the shards that ``STEM.safetensors.index.json`` names."""
    index, whole = folder / f"{stem}.safetensors.index.json", folder / f"{stem}.safetensors"
    if not index.is_file():
        if whole.is_file():
            return Weights((whole,))
        if shards := sorted(folder.glob(f"{stem}-*-of-*.safetensors")):
            return Weights(tuple(shards), (f"{index.name} is missing",))
        return Weights((), (f"{whole.name} is missing",))
    try:
        places = read_json(index)["weight_map"]
        names = sorted({str(name) for name in places.values()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return Weights((), (f"{index.name} is no index of weights",))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        return Weights((), (f"{index.name} names {outside[0]}, which is not in its folder",))
    lost = [name for name in names if not (folder / name).is_file()]
    there = tuple(folder / name for name in names if name not in lost)
    return Weights(there, tuple(f"{name} is missing" for name in lost), dict(places))


def missing_files(folder: Path, part: str) -> list[str]:
    """What a part's folder lacks, each in a few words; empty when every file is there."""
    if not folder.is_dir():
        return ["the folder is missing"]
    layout = LAYOUTS[part]
    faults = [] if (folder / layout.config).is_file() else [f"{layout.config} is missing"]
    if layout.weights:
        faults += weights_of(folder, layout.weights).faults
    if part == "tokenizer" and not faults:
        faults += _vocabulary(folder)
    return faults


def has_all_files(folder: Path, parts: tuple[str, ...] = PIPELINE_PARTS) -> bool:
    """Whether no file of these parts is missing; contents are not looked at."""
    return not any(missing_files(folder / part, part) for part in parts)


def _vocabulary(folder: Path) -> list[str]:
    try:
        name = read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    except (OSError, ValueError, TypeError):
        return ["tokenizer_config.json holds no JSON object"]
    if name in _BYTE_TOKENIZERS or any((folder / file).is_file() for file in _VOCABULARIES):
        return []
    return [f"the vocabulary is missing (one of {', '.join(_VOCABULARIES)})"]
