"""Which models there are, where they lie, and whether a folder is complete. Imports no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import Any

from flythrough.errors import WeightsError

BUNDLED = "nano"
_REQUIRED = {
    "transformer": "denoiser",
    "vae": "video codec",
    "text_encoder": "text encoder",
    "tokenizer": "tokenizer",
    "scheduler": "scheduler",
}
ST_DIFF_CLASS = "WanTransformer3DModel"
_DIGESTED = {".safetensors", ".json", ".model"}
_WHOLE_BYTES = 1 << 30
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class WorldWarpDefaults:
    """How an ST-Diff is run where nothing else is asked for; the values are WorldWarp's own.

    ``chunk_frames`` of which ``overlap`` are shared, ``steps`` a chunk, ``strength`` (share of the
    steps that rewrites what was rendered), ``erosion`` in pixels (the window in which everything
    must be valid), ``shift`` of the noise levels.
    """

    chunk_frames: int = 49
    overlap: int = 5
    steps: int = 50
    guidance_scale: float = 5.0
    strength: float = 0.8
    erosion: int = 15
    shift: float = 5.0


@dataclass(frozen=True, kw_only=True)
class ModelDefaults:
    """What a model folder says about itself in ``flythrough.json`` (all optional there).

    ``warp_stages`` counts the pyramid stages, from the coarsest, in which the warped history and
    the camera adapter are used (1 in the published method). ``warp`` overrides settings of the
    mesh warp by name (``scene.settings.WarpSettings``), where the published ones do not suit the
    model's geometry network. ``guidance_scale`` above 1, ``zero_star`` and ``zero_steps`` belong to
    models that are not distilled (``sampling.guidance.Guidance``). ``condition_noise``: a start
    image or video enters the history with a little noise. ``worldwarp`` is for an ST-Diff.
    """

    height: int = 384
    width: int = 640
    fps: float = 24.0
    steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = True
    max_sequence_length: int = 512
    visible_threshold: float = 0.1
    warp_stages: int = 1
    warp: dict[str, Any] = field(default_factory=dict)
    prompt_trigger: str = "camctl23x."
    guidance_scale: float = 1.0
    zero_star: bool = False
    zero_steps: int = 0
    condition_noise: bool = True
    worldwarp: WorldWarpDefaults = field(default_factory=WorldWarpDefaults)


def adapter_file(band: str) -> str:
    """Name of the camera adapter for a warp in ``band``, within a model's folder ``lora``."""
    return "camera.safetensors" if band == "short" else f"camera_{band}.safetensors"


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder: its name, place, parts present and own defaults.

    A value stands for the folder as it was found: its digest is taken once. ``stored_as`` is None,
    except in a folder of configurations alone (``models.foreseen``): the type that its weights will
    be stored in, by safetensors' name.
    """

    name: str
    path: Path
    defaults: ModelDefaults
    stored_as: str | None = None

    @property
    def geometry(self) -> Path | None:
        """Folder of the geometry network, if the model ships one."""
        folder = self.path / "geometry"
        return folder if folder.is_dir() else None

    @property
    def st_diff(self) -> Path | None:
        """Folder of the WorldWarp denoiser: one beside a Helios, or the model's own transformer."""
        for name in ("st_diff", "transformer"):
            folder = self.path / name
            if _json_or_empty(folder / "config.json").get("_class_name") == ST_DIFF_CLASS:
                return folder
        return None

    @property
    def is_helios(self) -> bool:
        """Whether the model's own transformer is not an ST-Diff."""
        return self.st_diff != self.path / "transformer"

    @property
    def camera_lora(self) -> Path | None:
        """The camera adapter that belongs to the model, if it ships one."""
        file = self.path / "lora" / "camera.safetensors"
        return file if file.is_file() else None

    def camera_adapter(self, band: str) -> Path | None:
        """The shipped camera adapter for a warp in ``band``: one of its own, or the usual one."""
        own = self.path / "lora" / adapter_file(band)
        return own if own.is_file() else self.camera_lora

    @property
    def fast_codec(self) -> Path | None:
        """A TAEHV codec beside the model's own: a codec folder, or the published file in one."""
        folder = self.path / "taehv"
        if (folder / "config.json").is_file():
            return folder
        return next(iter(sorted(folder.glob("*.safetensors"))), None)

    @property
    def codec_is_fast(self) -> bool:
        """Whether the model's own codec is a TAEHV."""
        return bool(_json_or_empty(self.path / "vae" / "config.json").get("_class_name") == "TAEHV")

    @property
    def distilled(self) -> bool:
        """Whether the scheduler is the few-step one."""
        return _few_steps(_json_or_empty(self.path / "scheduler" / "scheduler_config.json"))

    def weight_files(self) -> list[Path]:
        """Every safetensors file of the folder, in name order."""
        return sorted(self.path.rglob("*.safetensors"))

    def digest(self) -> str:
        """A fingerprint of weights, configurations and tokenizer (``folder_digest``)."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return folder_digest(self.path)


def folder_digest(folder: Path) -> str:
    """A fingerprint of the weights, configurations and tokenizers below ``folder``.

    Of weight files above 1 GB only size, beginning and end count, so that it stays cheap.
    """
    total = blake2b(digest_size=16)
    for file in sorted(p for p in folder.rglob("*") if p.suffix in _DIGESTED):
        size = file.stat().st_size
        total.update(f"{file.relative_to(folder).as_posix()}:{size};".encode())
        with file.open("rb") as opened:
            if size <= _WHOLE_BYTES:
                while block := opened.read(_BLOCK_BYTES):
                    total.update(block)
            else:
                total.update(opened.read(_BLOCK_BYTES))
                opened.seek(size - _BLOCK_BYTES)
                total.update(opened.read(_BLOCK_BYTES))
    return total.hexdigest()


def bundled_folder() -> Path:
    """Where the package keeps its small model."""
    return Path(str(files("flythrough"))) / "assets" / BUNDLED


def find_model(name_or_folder: str) -> ModelFolder:
    """Resolve a name, or a folder in the published file layout, and check that it is complete.

    Names are ``nano`` and those of ``models list`` that were fetched; a folder of that name in the
    working directory comes first.

    Raises:
        WeightsError: no such model, or a part of it is missing.
    """
    path = Path(name_or_folder).expanduser()
    name = path.name
    if name_or_folder == BUNDLED:
        path = bundled_folder()
    elif not path.is_dir():
        path, name = _fetched(name_or_folder), name_or_folder
    missing = [f"{part} ({what})" for part, what in _REQUIRED.items() if not (path / part).is_dir()]
    if missing:
        raise WeightsError(
            f"The model folder {path} lacks {', '.join(missing)}; download it again or add them."
        )
    return ModelFolder(name, path, read_defaults(path))


def _fetched(name: str) -> Path:
    """Where the published model of that name lies on this machine."""
    from flythrough.models.hub import find_local  # builds on this module
    from flythrough.models.published import ENTRIES

    entry = ENTRIES.get(name)
    if entry is None or entry.kind != "model":
        known = ", ".join(e.name for e in ENTRIES.values() if e.kind == "model")
        fault = f"There is no model {name!r}"
        if entry is not None:
            fault = f"{name!r} is no model but a part of one ({entry.what})"
        raise WeightsError(
            f"{fault}; use one of {known}, or the path of a folder in the "
            "diffusers layout (transformer, vae, text_encoder, tokenizer, scheduler)."
        )
    local = find_local(entry)
    if local is None or not local.complete:
        state = "not" if local is None else "only in part"
        raise WeightsError(
            f"{name} is {state} on this machine; run `flythrough models pull {name}`, or give the "
            "folder it lies in."
        )
    return local.path


def read_defaults(folder: Path) -> ModelDefaults:
    """Defaults from ``flythrough.json``; where the file or a key is absent, those published for
    the kind of model: Base (50 steps), Mid (20 in each of three stages), Distilled (2) or an
    ST-Diff."""
    published = _published_defaults(folder)
    file = folder / "flythrough.json"
    if not file.is_file():
        return published
    try:
        values: dict[str, Any] = json.loads(file.read_text())["defaults"]
        if "steps" in values:
            values["steps"] = tuple(int(n) for n in values["steps"])
        if "worldwarp" in values:
            values["worldwarp"] = replace(published.worldwarp, **values["worldwarp"])
            _check_worldwarp(values["worldwarp"])
        return replace(published, **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{file} is not a valid model description ({error}); restore the shipped file."
        ) from error


def _check_worldwarp(usual: WorldWarpDefaults) -> None:
    """Hold the table ``worldwarp`` to the rules that a rollout's settings follow.

    Raises:
        ValueError: which value, and what it must be.
    """
    ranges: dict[str, tuple[float, float]] = {
        "chunk_frames": (5, 1001),
        "overlap": (1, 1001),
        "steps": (1, 1000),
        "erosion": (1, 255),
        "guidance_scale": (1, 100),
        "strength": (0, 1),
        "shift": (0.01, 100),
    }
    whole = ("chunk_frames", "overlap", "steps", "erosion")
    for name, (low, high) in ranges.items():
        value = getattr(usual, name)
        if isinstance(value, bool) or not isinstance(value, int if name in whole else int | float):
            kind = "a whole number" if name in whole else "a number"
            raise ValueError(f"worldwarp {name} is {value!r} but must be {kind}")
        if not low <= value <= high:
            raise ValueError(f"worldwarp {name} is {value} but must be {low:g} to {high:g}")
    if usual.erosion % 2 == 0:
        raise ValueError(f"worldwarp erosion is {usual.erosion} but must be odd")
    for name in ("chunk_frames", "overlap"):
        if getattr(usual, name) % 4 != 1:
            raise ValueError(f"worldwarp {name} is {getattr(usual, name)} but must be 4k + 1")
    if usual.overlap >= usual.chunk_frames:
        raise ValueError(
            f"worldwarp overlap is {usual.overlap} but must be below chunk_frames, "
            f"{usual.chunk_frames}"
        )


def _published_defaults(folder: Path) -> ModelDefaults:
    scheduler = _json_or_empty(folder / "scheduler" / "scheduler_config.json")
    index = _json_or_empty(folder / "model_index.json")
    if _json_or_empty(folder / "transformer" / "config.json").get("_class_name") == ST_DIFF_CLASS:
        return ModelDefaults(height=480, width=720, fps=30.0)
    if _few_steps(scheduler):
        return ModelDefaults()
    stages = int(scheduler.get("stages", 3))
    return ModelDefaults(
        steps=(50,) if stages == 1 else (20,) * stages,
        amplify_first_chunk=False,
        guidance_scale=5.0,
        zero_star=stages > 1 and bool(index.get("is_cfg_zero_star", True)),
        zero_steps=1 if stages > 1 else 0,
    )


def _few_steps(scheduler: dict[str, Any]) -> bool:
    kind = scheduler.get("_class_name")
    return kind != "HeliosScheduler" or scheduler.get("scheduler_type", "unipc") == "dmd"


def _json_or_empty(file: Path) -> dict[str, Any]:
    """A broken file is reported when the part is loaded."""
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def disk_bytes(folder: Path) -> int:
    """Size of all files below ``folder``."""
    return sum(os.path.getsize(p) for p in folder.rglob("*") if p.is_file())
