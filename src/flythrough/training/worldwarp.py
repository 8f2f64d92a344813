"""``train worldwarp``: ST-Diff as published, from a Wan 2.1 folder, or as nano has it.

Known of the published training (arXiv 2512.19678): all weights of Wan 2.1 1.3B, 10 000 steps,
AdamW at 5e-5 after 1000 steps of warm-up, 480x720, batch 8 on each of 8 GPUs, hints from coloured
points of one frame. Not known, and chosen here: how levels are drawn and context is kept
(``StDiffSettings``), weight decay, averages. The published clips (RealEstate10K, DL3DV) are
replaced by procedural worlds and, if given, photographs on planes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from flythrough.conditioning.noise_field import FieldSettings
from flythrough.engine.build import pick_device
from flythrough.engine.options import check_device, check_size
from flythrough.engine.worldwarp_options import check_denoiser, checked_window
from flythrough.errors import InputError
from flythrough.models.catalog import find_model
from flythrough.models.loading import load_st_diff
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import load_any_codec
from flythrough.scene.settings import WarpSettings
from flythrough.training.hint_refill import HintDraw, HintRefill
from flythrough.training.loop import (
    Loop,
    LoopSettings,
    Record,
    rank_and_world,
    start_processes,
)
from flythrough.training.nano import NanoRun
from flythrough.training.nano import run as run_nano
from flythrough.training.nano_st_diff import preview, write_st_diff
from flythrough.training.photo_planes import PhotoPlanes, alternating
from flythrough.training.photos import PhotoClips
from flythrough.training.refill import Videos
from flythrough.training.st_diff import StDiffSettings, StDiffTask
from flythrough.training.world_data import HELDOUT_SEED, WorldStream, world_videos
from flythrough.worlds.sampler import SamplerSettings

Recipe = Literal["published", "nano"]

_REFILL = 2
"""Clips rendered at a time: 49 frames of 480x720 with depth are 270 MB each."""
_PHOTO_EVERY = 3


@dataclass(frozen=True, kw_only=True)
class WorldWarpRun:
    """What to train, and where to.

    ``base`` holds the weights to begin with, codec and text encoder: an ST-Diff or Wan folder, or
    (``recipe`` nano) a Helios folder. None of the counts takes the recipe's own: 10 000 ``steps``,
    ``batch`` 8 a process, ``learning_rate`` 5e-5, ``warmup`` 1000, ``frames`` 49 and ``size``
    480x720.
    """

    folder: Path
    base: Path
    recipe: Recipe = "published"
    steps: int | None = None
    batch: int | None = None
    learning_rate: float | None = None
    warmup: int | None = None
    frames: int | None = None
    size: tuple[int, int] | None = None
    minutes: float | None = None
    seed: int = 0
    photos: Path | None = None
    device: str = "auto"
    compile: bool = False
    preview_every: int = 0
    precision: Literal["bf16", "fp32"] | None = None


def run(asked: WorldWarpRun, on_record: object = None) -> dict[str, float]:
    """Train, resuming a checkpoint in the folder; write ``st_diff``; returns held-out figures.

    Raises:
        InputError: as :func:`check_run`.
    """
    check_run(asked)
    tell = on_record if callable(on_record) else None
    if asked.recipe == "nano":
        return run_nano(_as_nano(asked), tell)
    return _published(asked, tell)


def check_run(asked: WorldWarpRun) -> None:
    """Refuse what cannot work before anything is built.

    Raises:
        InputError: a value out of range, a folder that is missing, or an option without effect.
        WeightsError: the base is incomplete.
    """
    for name, value in (
        ("--steps", asked.steps),
        ("--batch", asked.batch),
        ("--warmup", asked.warmup),
    ):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is out of range; give at least 1.")
    rate = asked.learning_rate
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"--learning-rate {rate} is out of range; give a number between 0 and 1.")
    for option, folder in (("--base", asked.base), ("--photos", asked.photos)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option} {folder} is no folder; name one that exists.")
    if asked.folder.exists() and not asked.folder.is_dir():
        raise InputError(f"The run folder {asked.folder} is a file; name a folder.")
    check_device(asked.device)
    if asked.recipe == "nano":
        for name in ("warmup", "frames"):
            if getattr(asked, name) is not None:
                raise InputError(f"--{name} has no effect on --config nano; drop it.")
        return
    check_denoiser("worldwarp", find_model(str(asked.base)))
    checked_window(asked.frames or 49, 5)
    check_size(asked.size or (480, 720), pyramid=False)


def _as_nano(asked: WorldWarpRun) -> NanoRun:
    usual = NanoRun(part="stdiff", folder=asked.folder, base=asked.base)
    return replace(
        usual,
        steps=asked.steps or usual.steps,
        batch=asked.batch,
        learning_rate=asked.learning_rate,
        size=asked.size or usual.size,
        minutes=asked.minutes,
        seed=asked.seed,
        photos=asked.photos,
        device=asked.device,
        compile=asked.compile,
        preview_every=asked.preview_every,
        precision=asked.precision or usual.precision,
    )


def loop_settings(asked: WorldWarpRun) -> LoopSettings:
    """The published schedule: a straight warm-up, then a constant rate."""
    return LoopSettings(
        steps=asked.steps or 10_000,
        learning_rate=asked.learning_rate or 5e-5,
        warmup=asked.warmup or 1000,
        final_ratio=1.0,
        betas=(0.9, 0.999),
        seed=asked.seed,
        minutes=asked.minutes,
        precision=asked.precision or "bf16",
        preview_every=asked.preview_every,
    )


def build(asked: WorldWarpRun, device: torch.device) -> StDiffTask:
    """All weights of the base's ST-Diff, with its codec and text encoder frozen."""
    folder = find_model(str(asked.base))
    assert folder.st_diff is not None
    codec = load_any_codec(folder.path / "vae", device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    prompts = PromptEncoder.from_folder(folder.path, device=device, dtype=dtype)
    net = load_st_diff(folder.st_diff, torch.float32)
    nn.Module.to(net, device)
    nn.Module.requires_grad_(net, True)
    net.enable_gradient_checkpointing()
    usual = folder.defaults.worldwarp
    noise_field = FieldSettings(strength=usual.strength, erosion=usual.erosion)
    make = partial(
        HintRefill,
        codec=codec,
        prompts=prompts,
        max_length=folder.defaults.max_sequence_length,
        warps=WarpSettings(**{**_own(folder.defaults.warp), "memory": "points"}),
        noise_field=noise_field,
    )
    refill = make(_videos(asked, device), seed=asked.seed + 6, draw=HintDraw())
    if asked.compile:
        net.compile_repeated_blocks()
    batch = asked.batch or 8
    settings = StDiffSettings(
        batch=batch, seed=asked.seed, capacity=max(64, 4 * batch), shift=usual.shift
    )
    task = StDiffTask(
        net,
        refill.text([""]).detach(),
        refill,
        settings,
        export=lambda folder: write_st_diff(folder, net, "4GB"),
    )
    heldout = make(
        partial(world_videos, WorldStream(HELDOUT_SEED, _shape(asked), device)),
        seed=1,
        draw=HintDraw(overlaps=(5,), from_history=1.0, disturbed=0.0),
    )
    task.previewer = preview(task, codec, heldout, noise_field, usual.steps)
    return task


def _published(asked: WorldWarpRun, tell: object) -> dict[str, float]:
    device = start_processes(pick_device(asked.device))
    torch.manual_seed(asked.seed)
    task = build(asked, device)
    loop = Loop(task, loop_settings(asked), asked.folder, device)
    loop.resume()

    def record(one: Record) -> None:
        if callable(tell):
            tell(one)

    loop.run(record)
    if rank_and_world()[0] != 0:
        return {}
    figures = loop.write_preview()
    task.modules.eval()
    task.export(asked.folder)
    return figures


def _own(warp: dict[str, Any]) -> dict[str, Any]:
    """What the model says of confidence and fill; the rest is about meshes."""
    return {name: warp[name] for name in ("confidence", "top_fill", "fill") if name in warp}


def _shape(asked: WorldWarpRun) -> SamplerSettings:
    return SamplerSettings(
        size=asked.size or (480, 720),
        frames=asked.frames or 49,
        batch=_REFILL,
        outputs=("rgb", "depth"),
    )


def _videos(asked: WorldWarpRun, device: torch.device) -> Videos:
    shape = _shape(asked)
    worlds = partial(world_videos, WorldStream(asked.seed + 4, shape, device))
    if asked.photos is None:
        return worlds
    planes = PhotoPlanes(
        PhotoClips(asked.photos, device),
        asked.seed + 5,
        frames=shape.frames,
        batch=_REFILL,
        size=shape.size,
    )
    return alternating(worlds, planes, _PHOTO_EVERY)
