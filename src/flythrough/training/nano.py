"""Recipes of the bundled small model: which network, which data, which schedule, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import NANO_CONFIG as CODEC_CONFIG
from flythrough.training.codec import CodecSettings, CodecTask
from flythrough.training.loop import Loop, LoopSettings, Record, rank_and_world, start_processes
from flythrough.training.photos import PhotoClips

Part = Literal["codec", "geometry", "denoiser", "lora"]
SIZE = (192, 320)


@dataclass(frozen=True, kw_only=True)
class NanoRun:
    """One part of nano, where it starts from and where it goes.

    ``base`` is a model folder with the parts that are not trained here (the codec for the denoiser,
    everything for the adapter), or None. ``heldout_photos`` are only measured on.
    """

    part: Part
    folder: Path
    steps: int = 100_000
    minutes: float | None = None
    batch: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    base: Path | None = None
    photos: Path | None = None
    heldout_photos: Path | None = None
    device: str = "auto"
    compile: bool = False
    size: tuple[int, int] = SIZE
    preview_every: int = 0
    save_every: int = 500
    precision: Literal["bf16", "fp32"] = "fp32"


def run(settings: NanoRun, on_record: object = None) -> dict[str, float]:
    """Train one part, resume if the folder holds a checkpoint, export; returns held-out figures."""
    device = torch.device(
        settings.device
        if settings.device != "auto"
        else ("cuda" if torch.cuda.is_available() else "cpu")
    )
    start_processes(device)
    torch.manual_seed(settings.seed)
    builders = {"codec": build_codec}
    if settings.part not in builders:
        raise InputError(f"There is no part {settings.part!r}; choose {', '.join(builders)}.")
    task, rate = builders[settings.part](settings, device)
    loop = Loop(task, loop_settings(settings, rate), settings.folder, device)
    loop.resume()
    loop.run(on_record if callable(on_record) else None)
    if rank_and_world()[0] != 0:
        return {}
    figures = loop.write_preview()
    task.modules.eval()
    task.export(settings.folder)
    return figures


def loop_settings(settings: NanoRun, rate: float) -> LoopSettings:
    """The shared schedule with the part's learning rate."""
    return LoopSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate or rate,
        seed=settings.seed,
        minutes=settings.minutes,
        precision=settings.precision,
        preview_every=settings.preview_every,
        save_every=settings.save_every,
    )


def build_codec(settings: NanoRun, device: torch.device) -> tuple[CodecTask, float]:
    """The codec: worlds and drifting photographs, 13-frame clips."""
    net = TAEHV(CODEC_CONFIG)
    if settings.base is not None:
        from flythrough.models.codec import load_codec

        net = load_codec(settings.base / "vae").net
        net.requires_grad_(True)
    net = net.to(device).to(memory_format=torch.channels_last)
    batch = settings.batch or 12
    codec = CodecSettings(size=settings.size, seed=settings.seed, batch=batch)
    photos = None if settings.photos is None else PhotoClips(settings.photos, device)
    return CodecTask(net, codec, None, photos, heldout_clips(settings, device)), 6e-4


def heldout_clips(settings: NanoRun, device: torch.device) -> dict[str, Tensor]:
    """Photographs never trained on, drifting slowly."""
    clips: dict[str, Tensor] = {}
    if settings.heldout_photos is not None:
        stills = PhotoClips(settings.heldout_photos, device)
        source = torch.Generator().manual_seed(1)
        clips["photos"] = stills.clips(min(12, len(stills)), 13, settings.size, source)
    return clips
