"""What ``train lora`` is asked for, checked before anything heavy. Imports no torch."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from flythrough.engine.options import check_device, check_size
from flythrough.engine.presets import WarpBand
from flythrough.engine.worldwarp_options import check_denoiser
from flythrough.errors import InputError, WeightsError
from flythrough.models.catalog import BUNDLED, ModelFolder, find_model
from flythrough.training.run_folder import IDENTITY_FILE, LOCK_FILE

FORMAT = 1
PUBLISHED_DROP = 0.5
"""Visibility below which the published trainer leaves tokens out (``camera_recipe``)."""
_OF_DRY_RUN = {"geometry", "previews", LOCK_FILE}
_LARGE_BYTES = 2 << 30
"""Denoiser weights from which on activations are recomputed rather than kept."""


Poses = Literal["network", "features"]
"""How cameras that are not given are found: by the geometry network, or by features and depth."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long and how fast: ``items`` different clips are drawn (None: one a step and process)."""

    steps: int
    learning_rate: float
    items: int | None = None


PUBLISHED = Recipe(steps=1000, learning_rate=1e-4)
"""Warp-as-History's: a new clip each step."""
NANO = Recipe(steps=160, learning_rate=5e-4, items=40)
"""For the bundled model on two cores: drawing a clip costs as much there as a step, so each of 40
is used five times, with new noise and in another stage."""


@dataclass(frozen=True, kw_only=True)
class LoraRequest:
    """Everything ``flythrough train lora`` accepts; None takes the default of model or recipe.

    ``data`` is a video, a folder (of ``flythrough world``, or of pictures), or a list of videos.
    ``camera``: its cameras in a camera file, one a frame; ``depth``: an .npz with its z-depth
    [T,H,W] in the cameras' unit; ``poses``: how cameras that are not given are found. ``items``:
    different clips that are drawn. ``reverse``: some are played backwards. ``reference``: the
    published trainer with its defects.
    """

    data: Path
    folder: Path
    model: str = BUNDLED
    prompt: str | None = None
    camera: Path | None = None
    depth: Path | None = None
    poses: Poses | None = None
    video_column: str | None = None
    prompt_column: str | None = None
    limit: int | None = None
    frame_stride: int = 1
    max_frames: int | None = None
    size: tuple[int, int] | None = None
    band: WarpBand = "short"
    threshold: float | None = None
    reverse: bool = True
    reference: bool = False
    steps: int | None = None
    items: int | None = None
    rank: int = 32
    alpha: float | None = None
    learning_rate: float | None = None
    seed: int = 42
    gradient_checkpointing: bool | None = None
    sample_every: int = 0
    save_every: int = 50
    dry_run: bool = False
    device: str = "auto"


@dataclass(frozen=True)
class LoraPlan:
    """A request found consistent, with every default filled in."""

    request: LoraRequest
    model: ModelFolder
    size: tuple[int, int]
    steps: int
    items: int | None
    learning_rate: float
    alpha: float
    threshold: float
    stages: tuple[int, ...]
    checkpointing: bool
    poses: Poses

    @property
    def mode(self) -> str:
        """The band as adapter files and ``WarpHistorySettings`` call it."""
        return self.request.band.replace("-", "_")

    @property
    def adapter(self) -> Path:
        """The file that ``--lora`` of generate takes."""
        name = "camera" if self.mode == "short" else f"camera_{self.mode}"
        return self.request.folder / "lora" / f"{name}.safetensors"

    def item_count(self, processes: int) -> int:
        """Different items of the run."""
        every = self.steps * processes
        return every if self.items is None else min(self.items, every)

    def identity(self, data_digest: str, processes: int) -> dict[str, Any]:
        """What a run folder belongs to: all that its weights depend on, but for the number of
        steps, so that a finished run can be made longer."""
        request = self.request
        return {
            "format": FORMAT,
            "data": data_digest,
            "model": self.model.name,
            "model_digest": self.model.digest(),
            "size": list(self.size),
            "prompt": request.prompt,
            "limit": request.limit,
            "frame_stride": request.frame_stride,
            "max_frames": request.max_frames,
            "band": self.mode,
            "threshold": self.threshold,
            "stages": list(self.stages),
            "reverse": request.reverse,
            "reference": request.reference,
            "poses": self.poses,
            "items": self.items,
            "rank": request.rank,
            "alpha": self.alpha,
            "learning_rate": self.learning_rate,
            "seed": request.seed,
            "processes": processes,
        }


def check_lora(request: LoraRequest) -> LoraPlan:
    """Fill in defaults and refuse what cannot work, in one sentence.

    Raises:
        InputError: a value out of range, an option without effect, or a model that is an ST-Diff.
        WeightsError: there is no such model.
    """
    _check_numbers(request)
    _check_sources(request)
    check_device(request.device)
    _check_folder(request.folder)
    model = find_model(request.model)
    check_denoiser("warp-as-history", model, "name a folder whose transformer is a Helios")
    size = request.size or (model.defaults.height, model.defaults.width)
    check_size(size)
    _check_rank(request.rank, model)
    recipe = NANO if request.model == BUNDLED and not request.reference else PUBLISHED
    threshold = PUBLISHED_DROP if request.reference else model.defaults.visible_threshold
    if request.threshold is not None:
        threshold = request.threshold
    checkpointing = request.gradient_checkpointing
    if checkpointing is None:
        checkpointing = _denoiser_bytes(model) > _LARGE_BYTES
    return LoraPlan(
        request=request,
        model=model,
        size=size,
        steps=request.steps or recipe.steps,
        items=recipe.items if request.items is None else request.items,
        learning_rate=request.learning_rate or recipe.learning_rate,
        alpha=float(request.rank if request.alpha is None else request.alpha),
        threshold=threshold,
        stages=tuple(range(max(1, model.defaults.warp_stages))),
        checkpointing=checkpointing,
        poses=_poses(request),
    )


def stated(plan: LoraPlan) -> dict[str, Any]:
    """The request as it was given, for the record."""
    values = asdict(plan.request)
    return {name: str(v) if isinstance(v, Path) else v for name, v in values.items()}


def _check_numbers(request: LoraRequest) -> None:
    ranges: dict[str, tuple[float | None, float, float]] = {
        "--steps": (request.steps, 1, 1_000_000),
        "--items": (request.items, 1, 1_000_000),
        "--limit": (request.limit, 1, 1_000_000),
        "--frame-stride": (request.frame_stride, 1, 1000),
        "--max-frames": (request.max_frames, 33, 1_000_000),
        "--threshold": (request.threshold, 0, 1),
        "--rank": (request.rank, 1, 4096),
        "--seed": (request.seed, 0, 2**63 - 1),
        "--sample-every": (request.sample_every, 0, 1_000_000),
        "--save-every": (request.save_every, 1, 1_000_000),
    }
    for name, (value, low, high) in ranges.items():
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name} {value} is out of range; give {low:g} to {high:g}.")
    for name, number in (("--alpha", request.alpha), ("--learning-rate", request.learning_rate)):
        if number is not None and not (math.isfinite(number) and 0 < number <= 4096):
            raise InputError(f"{name} {number:g} is out of range; give a number above 0.")
    if request.learning_rate is not None and request.learning_rate >= 1:
        raise InputError(
            f"--learning-rate {request.learning_rate:g} is out of range; give less than 1, like "
            "1e-4."
        )
    if request.poses not in (None, *get_args(Poses)):
        raise InputError(
            f"--poses {request.poses} is unknown; choose {' or '.join(get_args(Poses))}."
        )
    if request.band not in get_args(WarpBand):
        raise InputError(
            f"--band {request.band} is unknown; choose {' or '.join(get_args(WarpBand))}."
        )


def _check_sources(request: LoraRequest) -> None:
    data = request.data
    if not data.exists():
        raise InputError(f"There is no training data {data}; name a video, a folder or a list.")
    listed = is_list(data)
    options = {
        "--camera": request.camera,
        "--depth": request.depth,
        "--prompt": request.prompt,
    }
    only_lists = {
        "--video-column": request.video_column,
        "--prompt-column": request.prompt_column,
        "--limit": request.limit,
    }
    for name, value in (options if listed else only_lists).items():
        if value is not None:
            kind = "a list, whose rows name videos and captions" if listed else "a single clip"
            raise InputError(f"{name} {value} has no effect on {kind}; drop it.")
    for name, path in (("--camera", request.camera), ("--depth", request.depth)):
        if path is not None and not (path.is_file() or (name == "--camera" and path.is_dir())):
            raise InputError(f"{name} {path} is no file; name one that exists.")
    world = data.is_dir() and (data / "cameras.npz").is_file()
    if request.poses is not None and (request.camera is not None or world):
        raise InputError(
            f"--poses {request.poses} has no effect on cameras that are given; drop it."
        )
    if request.depth is not None and request.camera is None and not world:
        raise InputError(
            f"--depth {request.depth} has no effect without cameras; add --camera FILE."
        )


def is_list(data: Path) -> bool:
    """Whether the data are a list of videos."""
    return data.suffix.lower() in (".csv", ".jsonl")


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The run folder {folder} is a file; name a folder.")
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(f"The folder {parent} cannot be written to; choose another run folder.")
    if not folder.is_dir() or (folder / IDENTITY_FILE).is_file():
        return
    if any(entry.name not in _OF_DRY_RUN for entry in folder.iterdir()):
        raise InputError(
            f"The run folder {folder} holds other files; name a new folder or that of an earlier "
            "run."
        )


def _poses(request: LoraRequest) -> Poses:
    """nano's geometry network was trained for depth and sees next to no motion."""
    usual: Poses = "features" if request.model == BUNDLED else "network"
    return request.poses or usual


def _check_rank(rank: int, model: ModelFolder) -> None:
    from flythrough.models.adapter_origin import denoiser_size

    width = denoiser_size(model)[1]
    if rank > width:
        raise InputError(
            f"--rank {rank} is more than the {width} channels of {model.name}; give at most "
            f"{width} (published: 32)."
        )


def _denoiser_bytes(model: ModelFolder) -> int:
    files = list((model.path / "transformer").glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{model.path / 'transformer'} holds no weights; download it again.")
    return sum(file.stat().st_size for file in files)
