"""Depth and adapter files named on the command line: opened early, remembered by content.

Torch is imported only where such a file has to be opened.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np

from flythrough.errors import RolloutError, WeightsError
from flythrough.models.lora_layouts import adapter_files

_NETWORKS = ("default", "pi3x")
WORDS = (*_NETWORKS, "flat", "off")
_BLOCK = 1 << 20


def is_network(geometry: str) -> bool:
    """Whether ``--geometry`` asks for the model's own geometry network."""
    return geometry in _NETWORKS


def check_geometry_file(geometry: str, pixels: np.ndarray) -> None:
    """Try ``flat`` or a depth file on the photo uint8 [H,W,3].

    Raises:
        GeometryError: an unknown name, an unusable file, or a map of another shape.
    """
    if geometry == "flat":
        return
    import torch

    from flythrough.geometry.estimators.select import check_geometry_choice, load_estimator

    check_geometry_choice(geometry)
    picture = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    load_estimator(geometry).estimate(picture)


def check_lora(lora: str) -> None:
    """Try to open an adapter, a file or a folder; ``default`` and ``off`` are always fine here.

    Raises:
        WeightsError: no such file, or it holds no adapter.
    """
    if lora in ("default", "off"):
        return
    if not Path(lora).exists():
        raise WeightsError(
            f"There is no adapter file {lora}; use default, off, or the path of a .safetensors "
            "file or PEFT folder."
        )
    adapter_files(Path(lora))
    from flythrough.models.lora_files import read_lora

    read_lora(lora)


def named_files(geometry: str, lora: str) -> dict[str, str]:
    """Digest of every option that names a file, to be kept with a rollout.

    Raises:
        WeightsError: ``lora`` is a folder without an adapter.
    """
    found = {}
    if names_file(geometry):
        found["geometry_digest"] = _digest(Path(geometry))
    if names_file(lora):
        found["lora_digest"] = _digest(*adapter_files(Path(lora)))
    return found


def names_file(value: str) -> bool:
    """Whether an option is the path of a file, or of an adapter's folder; the known words are
    never taken for one."""
    return value not in WORDS and Path(value).exists()


def check_unchanged(geometry: str, lora: str, settings: dict[str, object]) -> None:
    """The files that a rollout was started with are still the same.

    Raises:
        RolloutError: one is missing or changed.
    """
    try:
        found = named_files(geometry, lora)
    except (OSError, WeightsError):
        found = {}
    for name, value in (("geometry_digest", geometry), ("lora_digest", lora)):
        if name in settings and settings[name] != found.get(name):
            raise RolloutError(
                f"The file {value} is missing or changed since the rollout was started; restore it "
                "or start a new rollout."
            )


def _digest(*paths: Path | None) -> str:
    total = blake2b(digest_size=16)
    for path in paths:
        if path is not None:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    total.update(block)
    return total.hexdigest()
