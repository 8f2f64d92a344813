"""Depth and adapter files named on the command line: opened early, remembered by content."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np

from flythrough.errors import RolloutError, WeightsError

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
    """Try to open an adapter file; ``default`` and ``off`` are always fine here.

    Raises:
        WeightsError: no such file, or it holds no adapter.
    """
    if lora in ("default", "off"):
        return
    if not Path(lora).is_file():
        raise WeightsError(
            f"There is no adapter file {lora}; use default, off or the path of a .safetensors file."
        )
    from flythrough.models.adapters import read_lora

    read_lora(lora)


def named_files(geometry: str, lora: str) -> dict[str, str]:
    """Digest of every option that names a file, to be kept with a rollout."""
    options = {"geometry_digest": geometry, "lora_digest": lora}
    return {name: _digest(Path(v)) for name, v in options.items() if names_file(v)}


def names_file(value: str) -> bool:
    """Whether an option is a file's path; the known words are never taken for one."""
    return value not in WORDS and Path(value).is_file()


def check_unchanged(geometry: str, lora: str, settings: dict[str, object]) -> None:
    """The files that a rollout was started with are still the same.

    Raises:
        RolloutError: one is missing or changed.
    """
    found = named_files(geometry, lora)
    for name, value in (("geometry_digest", geometry), ("lora_digest", lora)):
        if name in settings and settings[name] != found.get(name):
            raise RolloutError(
                f"The file {value} is missing or changed since the rollout was started; restore it "
                "or start a new rollout."
            )


def _digest(path: Path) -> str:
    total = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()
