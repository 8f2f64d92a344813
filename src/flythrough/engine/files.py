"""Depth and adapter files named on the command line: opened early, remembered by content.

Torch is imported only where such a file has to be opened.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from flythrough.errors import RolloutError, WeightsError
from flythrough.geometry.estimators.words import split_axes
from flythrough.models.catalog import ModelFolder, folder_digest
from flythrough.models.lora_layouts import adapter_files
from flythrough.models.published import ENTRIES, MONOCULAR_NAMES
from flythrough.models.ttt3r_folder import is_streaming_folder
from flythrough.rollout.spec import RolloutSpec

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
    return _is_folder(geometry) and not is_streaming(geometry)


def is_streaming(geometry: str) -> bool:
    """Whether ``--geometry`` is the folder of a network that reads frames one after the other."""
    return _is_folder(geometry) and is_streaming_folder(Path(geometry).expanduser())


def _is_folder(geometry: str) -> bool:
    return geometry not in WORDS and Path(geometry).expanduser().is_dir()


def check_lora(lora: str) -> None:
    """Try to open an adapter, a file or a folder; ``default`` and ``off`` are always fine here.

    Raises:
        WeightsError: no such file, or it holds no adapter.
    """
    if lora in ("default", "off"):
        return
    if not Path(lora).exists():
        entry = ENTRIES.get(lora)
        if entry is not None and entry.kind == "adapter":
            raise WeightsError(
                f"--lora {lora} names a published adapter, but a file is wanted; run `flythrough "
                f"models pull {lora} --to adapters` and give adapters/{entry.parts[0]}."
            )
        raise WeightsError(
            f"There is no adapter file {lora}; use default, off, or the path of a .safetensors "
            "file or PEFT folder."
        )
    adapter_files(Path(lora))
    from flythrough.models.lora_files import read_lora

    read_lora(lora)


def named_files(geometry: str, lora: str, style: str | None = None) -> dict[str, str]:
    """Digest of every option that names a file or a depth network, to be kept with a rollout.

    Raises:
        WeightsError: ``lora`` or ``style`` is a folder without an adapter.
    """
    found = {}
    if is_monocular(geometry):
        from flythrough.models.monocular_files import find_monocular

        found["geometry_digest"] = folder_digest(find_monocular(geometry).path)
    elif is_streaming(geometry):
        found["geometry_digest"] = folder_digest(Path(geometry).expanduser())
    elif names_file(geometry):
        found["geometry_digest"] = _digest(file_of(geometry))
    if names_file(lora):
        found["lora_digest"] = _digest(*adapter_files(Path(lora)))
    if style is not None:
        found["style_lora_digest"] = _digest(*adapter_files(Path(style)))
    return found


def names_file(value: str) -> bool:
    """Whether an option is the path of a file, or of the folder of an adapter or a network; the
    known words are never taken for one."""
    return value not in WORDS and file_of(value).exists()


def file_of(value: str) -> Path:
    """The path in an option, without the axes that may follow it."""
    return Path(split_axes(value)[0]).expanduser()


def absolute(value: str) -> str:
    """The option with its path made absolute, if it names a file or a folder."""
    if not names_file(value):
        return value
    axes = split_axes(value)[1]
    return str(file_of(value).resolve()) + (f":{axes}" if axes else "")


def check_sources(spec: RolloutSpec, model: ModelFolder) -> None:
    """Everything that a rollout was started with is still the same: model, depth, adapter.

    Raises:
        WeightsError: the model changed.
        RolloutError: a depth or adapter file is missing or changed.
    """
    if model.digest() != spec.model_digest:
        raise WeightsError(
            f"The model {spec.model} is not the one this rollout was made with (its weights "
            "changed); restore the old weights or start a new rollout."
        )
    check_unchanged(spec.geometry, spec.lora, dict(spec.settings))


def check_unchanged(geometry: str, lora: str, settings: dict[str, object]) -> None:
    """The files that a rollout was started with are still the same.

    Raises:
        RolloutError: one is missing or changed.
    """
    style = None if settings.get("style_lora") is None else str(settings["style_lora"])
    try:
        found = named_files(geometry, lora, style)
    except (OSError, WeightsError):
        found = {}
    named = {"geometry_digest": geometry, "lora_digest": lora, "style_lora_digest": style}
    for name, value in named.items():
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
