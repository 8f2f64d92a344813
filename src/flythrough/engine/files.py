"""Depth and adapter files named on the command line: opened early, remembered by content."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from flythrough.errors import RolloutError, WeightsError
from flythrough.geometry.estimators.words import split_axes
from flythrough.models.catalog import folder_digest
from flythrough.models.published import MONOCULAR_NAMES

_NETWORKS = ("default", "pi3x")
WORDS = (*_NETWORKS, *MONOCULAR_NAMES, "flat", "off")
_BLOCK = 1 << 20


def is_network(geometry: str) -> bool:
    """Whether ``--geometry`` asks for the model's own geometry network."""
    return geometry in _NETWORKS


def is_monocular(geometry: str) -> bool:
    """Whether ``--geometry`` names a monocular depth network, or the folder of one."""
    if geometry in MONOCULAR_NAMES:
        return True
    return geometry not in WORDS and Path(geometry).expanduser().is_dir()


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
    """Digest of every option that names a file or a depth network, to be kept with a rollout."""
    options = {"geometry_digest": geometry, "lora_digest": lora}
    found = {name: _digest(file_of(v)) for name, v in options.items() if names_file(v)}
    if is_monocular(geometry):
        from flythrough.models.monocular_files import find_monocular

        found["geometry_digest"] = folder_digest(find_monocular(geometry).path)
    return found


def names_file(value: str) -> bool:
    """Whether an option is a file's path; the known words are never taken for one."""
    return value not in WORDS and file_of(value).is_file()


def file_of(value: str) -> Path:
    """The path in an option, without the axes that may follow it."""
    return Path(split_axes(value)[0])


def absolute(value: str) -> str:
    """The option with its path made absolute, if it names a file or a folder."""
    path, axes = split_axes(value)
    if names_file(value):
        return str(Path(path).resolve()) + (f":{axes}" if axes else "")
    if is_monocular(value) and value not in MONOCULAR_NAMES:
        return str(Path(value).expanduser().resolve())
    return value


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
