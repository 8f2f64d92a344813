"""What a camera adapter was trained for, as its file's metadata says. Imports no torch.

Published adapters say nothing; those that ``train`` writes name the history band of the warp, rank,
alpha, the visibility threshold and the size of the base model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flythrough.disk import read_json
from flythrough.errors import WeightsError
from flythrough.models.catalog import ModelFolder

BANDS = ("short", "patch_mid")
_PEFT_FILE = "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterOrigin:
    """The statements of one file; None where it makes none.

    ``band``: short or patch_mid; ``layers`` and ``width`` of the base model's denoiser.
    """

    file: Path
    band: str | None = None
    layers: int | None = None
    width: int | None = None

    def check_base(self, model: ModelFolder) -> None:
        """The model has the size that the adapter was trained for.

        Raises:
            WeightsError: another number of layers or channels.
        """
        layers, width = denoiser_size(model)
        if self.layers not in (None, layers) or self.width not in (None, width):
            raise WeightsError(
                f"The adapter {self.file} was trained for a base model of {self.layers or layers} "
                f"layers and {self.width or width} channels, but {model.name} has {layers} and "
                f"{width}; use an adapter trained for this model."
            )

    def suits(self, band: str) -> bool:
        """Whether nothing says that it was trained for another band."""
        return self.band in (None, band)

    def check_band(self, band: str) -> None:
        """The warp goes into the band that the adapter was trained for.

        Raises:
            WeightsError: it does not.
        """
        if not self.suits(band):
            trained, asked = (str(b).replace("_", "-") for b in (self.band, band))
            raise WeightsError(
                f"The adapter {self.file} was trained for --warp-band {trained}, not {asked}; add "
                f"--warp-band {trained} or use another adapter."
            )


def adapter_origin(path: Path) -> AdapterOrigin:
    """Read the statements of a safetensors file, or of the one in a PEFT folder.

    Other files make none here; whoever loads them says what is wrong with them.

    Raises:
        WeightsError: unreadable, or a statement that makes no sense.
    """
    file = path / _PEFT_FILE if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() != ".safetensors":
        return AdapterOrigin(path)
    stated, rank = _metadata(file)
    band = stated.get("mode")
    if band is not None and band not in BANDS:
        raise WeightsError(
            f"The adapter {path} says it was trained for the band {band!r}, which is not known "
            f"here; use one for {' or '.join(BANDS)}."
        )
    if _number(stated, "rank", path) not in (None, rank):
        raise WeightsError(
            f"The adapter {path} states rank {stated['rank']} but its tensors have rank {rank}, so "
            "its strength is unknown; get the original file."
        )
    layers, width = (_number(stated, name, path) for name in ("base_layers", "base_width"))
    return AdapterOrigin(path, band, layers, width)


def origin_metadata(model_config: Mapping[str, Any], band: str, threshold: float) -> dict[str, str]:
    """The entries that :func:`adapter_origin` reads, for an adapter of the denoiser with
    ``model_config``; rank and alpha are written with the tensors."""
    layers, width = _size(model_config)
    return {
        "mode": band,
        "threshold": f"{threshold:g}",
        "base_layers": str(layers),
        "base_width": str(width),
    }


def denoiser_size(model: ModelFolder) -> tuple[int, int]:
    """(layers, channels) of the model's denoiser.

    Raises:
        WeightsError: its configuration is unreadable.
    """
    file = model.path / "transformer" / "config.json"
    try:
        return _size(read_json(file))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{file} cannot be read ({error}); restore the file.") from error


def _size(config: Mapping[str, Any]) -> tuple[int, int]:
    heads, channels = int(config["num_attention_heads"]), int(config["attention_head_dim"])
    return int(config["num_layers"]), heads * channels


def _metadata(file: Path) -> tuple[dict[str, str], int | None]:
    """What the file states, and the rank of its first layer."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            downs = sorted(key for key in opened.keys() if ".lora_A." in key)  # noqa: SIM118
            rank = int(opened.get_slice(downs[0]).get_shape()[0]) if downs else None
            return dict(opened.metadata() or {}), rank
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"{file} is not a readable adapter ({error}); give a LoRA in a .safetensors file."
        ) from error


def _number(stated: Mapping[str, str], name: str, path: Path) -> int | None:
    if name not in stated:
        return None
    try:
        return int(stated[name])
    except ValueError:
        raise WeightsError(
            f"The adapter {path} states {name} as {stated[name]!r}, which is no whole number; "
            "correct the file's metadata."
        ) from None
