"""Recipes of the bundled small model: which network, which data, which schedule, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from flythrough.conditioning.warped_history import WarpBand
from flythrough.engine.build import pick_device
from flythrough.engine.options import check_device
from flythrough.errors import InputError
from flythrough.models.codec import load_codec
from flythrough.models.pi3x import Pi3X
from flythrough.models.pi3x_config import NANO_CONFIG as GEOMETRY_CONFIG
from flythrough.models.pi3x_files import load_pi3x
from flythrough.models.taehv import TAEHV
from flythrough.models.taehv_config import NANO_CONFIG as CODEC_CONFIG
from flythrough.training.codec import CodecSettings, CodecTask, photo_crops, random_crops
from flythrough.training.geometry import GeometryTask
from flythrough.training.loop import (
    ExportedTask,
    Loop,
    LoopSettings,
    Record,
    rank_and_world,
    start_processes,
)
from flythrough.training.photos import PhotoClips
from flythrough.training.world_data import HELDOUT_SEED, WorldStream, world_pixels, world_views
from flythrough.worlds.sampler import SamplerSettings

Part = Literal["codec", "geometry", "denoiser", "lora", "stdiff"]
_CODEC_FRAMES = 9
_CODEC_CROP = (96, 160)
_GEOMETRY_SIZE = (140, 238)


@dataclass(frozen=True, kw_only=True)
class NanoRun:
    """One part of nano, where it starts from and where it goes.

    ``base`` is a model folder with the parts that are not trained here, and the starting weights of
    the part that is, where it has them. ``heldout_photos`` are only measured on. ``warp_stages``
    counts the pyramid stages, from the coarsest, that see the warp and get the camera adapter;
    ``band`` is the history band that takes it (``conditioning.warped_history``). ``detail`` weighs
    the codec's loss on the amount of fine structure; ``keep_encoder`` trains its decoder alone and
    ``keep_text`` the denoiser without its text encoder, so that what else reads latents or texts
    stays good.
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
    size: tuple[int, int] = (192, 320)
    preview_every: int = 0
    save_every: int = 1000
    precision: Literal["bf16", "fp32"] = "fp32"
    warp_stages: int = 1
    band: WarpBand = "short"
    detail: float = 0.0
    keep_encoder: bool = False
    keep_text: bool = False


def run(settings: NanoRun, on_record: Callable[[Record], None] | None = None) -> dict[str, float]:
    """Train one part, resuming a checkpoint in its folder; export it; returns held-out figures."""
    check_run(settings)
    device = start_processes(pick_device(settings.device))
    torch.manual_seed(settings.seed)
    task, rate = builder(settings.part)(settings, device)
    loop = Loop(task, loop_settings(settings, rate), settings.folder, device)
    loop.resume()
    loop.run(on_record)
    if rank_and_world()[0] != 0:
        return {}
    figures = loop.write_preview()
    task.modules.eval()
    task.export(settings.folder)
    return figures


def check_run(settings: NanoRun) -> None:
    """Refuse what cannot work before anything is built.

    Raises:
        InputError: a value out of range, a folder that is missing, or an option that the part does
            not use.
    """
    part = settings.part
    ranges = {
        "--steps": (settings.steps, 1),
        "--batch": (settings.batch, 1),
        "--warp-stages": (settings.warp_stages, 1),
    }
    for name, (value, least) in ranges.items():
        if value is not None and value < least:
            raise InputError(f"{name} {value} is out of range; give at least {least}.")
    rate = settings.learning_rate
    if rate is not None and not 0 < rate < 1:
        raise InputError(f"--learning-rate {rate} is out of range; give a number between 0 and 1.")
    if settings.warp_stages > 3:
        raise InputError(f"--warp-stages {settings.warp_stages} is more than the 3 stages of nano.")
    if not 0 <= settings.detail <= 1:
        raise InputError(f"--detail {settings.detail} is out of range; give a number from 0 to 1.")
    if settings.keep_encoder and settings.base is None:
        raise InputError("--keep-encoder needs a codec to keep; give --base FOLDER with a vae.")
    codec_alone = ("detail", "keep_encoder")
    unused = {
        "codec": ("compile", "warp_stages", "band", "keep_text"),
        "geometry": (
            *("photos", "heldout_photos", "size", "compile", "warp_stages", "band"),
            *("keep_text", *codec_alone),
        ),
        "denoiser": ("heldout_photos", "warp_stages", "band", *codec_alone),
        "lora": ("heldout_photos", "keep_text", *codec_alone),
        "stdiff": ("heldout_photos", "warp_stages", "keep_text", *codec_alone),
    }[part]
    standard = {field.name: field.default for field in fields(NanoRun)}
    for name in unused:
        if getattr(settings, name) != standard[name]:
            option = {"band": "warp-band"}.get(name, name.replace("_", "-"))
            raise InputError(f"--{option} has no effect on {part}; drop it.")
    for option, folder in (("--base", settings.base), ("--photos", settings.photos)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option} {folder} is no folder; name one that exists.")
    if settings.folder.exists() and not settings.folder.is_dir():
        raise InputError(f"The run folder {settings.folder} is a file; name a folder.")
    check_device(settings.device)


def builder(part: Part) -> Callable[[NanoRun, torch.device], tuple[ExportedTask, float]]:
    """The function that sets up a part and names its peak learning rate."""
    if part == "codec":
        return build_codec
    if part == "geometry":
        return build_geometry
    if part == "stdiff":
        from flythrough.training.nano_st_diff import build_st_diff

        return build_st_diff
    from flythrough.training.nano_denoiser import build_denoiser, build_lora

    return build_denoiser if part == "denoiser" else build_lora


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


def build_codec(settings: NanoRun, device: torch.device) -> tuple[ExportedTask, float]:
    """Half worlds, half drifting photographs, in small crops: the network is convolutional."""
    net = TAEHV(CODEC_CONFIG) if settings.base is None else load_codec(settings.base / "vae").net
    net = net.requires_grad_(True).to(device)
    batch = settings.batch or 16
    crop = tuple(min(a, b) for a, b in zip(_CODEC_CROP, settings.size, strict=True))
    codec = CodecSettings(
        size=(crop[0], crop[1]),
        view=settings.size,
        frames=_CODEC_FRAMES,
        seed=settings.seed,
        batch=batch,
        detail=settings.detail,
        keep_encoder=settings.keep_encoder,
    )
    photos = None if settings.photos is None else PhotoClips(settings.photos, device)
    share = batch if photos is None else batch // 2
    stream = WorldStream(
        settings.seed,
        SamplerSettings(
            size=settings.size, frames=_CODEC_FRAMES, batch=max(1, share // 2), outputs=("rgb",)
        ),
        device,
    )

    def worlds(step: int, rank: int) -> Tensor:
        video = world_pixels(stream, step, rank)
        index = torch.arange(share, device=video.device) % len(video)
        return random_crops(video[index], codec.size, torch.Generator().manual_seed(step))

    heldout = heldout_clips(settings, device)
    return CodecTask(net, codec, worlds, photos, heldout), 1e-3


def heldout_clips(settings: NanoRun, device: torch.device) -> dict[str, Tensor]:
    """Clips never trained on: held-out worlds, and photographs drifting slowly."""
    held = SamplerSettings(size=settings.size, frames=13, batch=6, outputs=("rgb",))
    clips = {"worlds": WorldStream(HELDOUT_SEED, held, device)(0, 0).rgb}
    if settings.heldout_photos is not None:
        stills = PhotoClips(settings.heldout_photos, device)
        source = torch.Generator().manual_seed(1)
        shape = CodecSettings(size=settings.size, view=settings.size, frames=13)
        clips["photos"] = photo_crops(stills, min(12, len(stills)), shape, source)
    return clips


def build_geometry(settings: NanoRun, device: torch.device) -> tuple[ExportedTask, float]:
    """Two views a world at a size the patches divide."""
    start = None if settings.base is None else settings.base / "geometry"
    if start is None or not start.is_dir():
        net = Pi3X(GEOMETRY_CONFIG)
    else:
        net = load_pi3x(start, device=device)
    net = net.to(device).requires_grad_(True)
    batch = settings.batch or 32
    shape = SamplerSettings(size=_GEOMETRY_SIZE, frames=2, batch=batch, outputs=("rgb", "depth"))
    stream = WorldStream(settings.seed + 1, shape, device)
    held = SamplerSettings(size=(196, 322), frames=2, batch=16, outputs=("rgb", "depth"))
    heldout = world_views(WorldStream(HELDOUT_SEED, held, device), 2, 0, 0)
    return GeometryTask(net, partial(world_views, stream, 2), heldout), 5e-4


__all__ = ["NanoRun", "Part", "build_codec", "build_geometry", "run"]
