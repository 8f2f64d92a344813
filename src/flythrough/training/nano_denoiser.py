"""Recipes of nano's denoiser and its camera adapter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from flythrough.conditioning.prompts import TRIGGER, with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.errors import InputError
from flythrough.media.picture import contact_sheet
from flythrough.models.adapter_origin import origin_metadata
from flythrough.models.adapters import fill_lora, lora_state, new_lora, set_lora_active
from flythrough.models.catalog import adapter_file
from flythrough.models.codec import VideoCodec, load_codec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.lora_files import read_lora, save_lora
from flythrough.models.start_weights import average_predictor
from flythrough.models.text import PromptEncoder, byte_tokenizer, new_text_encoder
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import block_noise
from flythrough.sampling.pyramid import sample_pyramid
from flythrough.scene.settings import WarpSettings
from flythrough.training.denoiser import DenoiserSettings, DenoiserTask
from flythrough.training.latents import EncodedClips
from flythrough.training.loop import ExportedTask
from flythrough.training.nano import NanoRun
from flythrough.training.nano_files import (
    DEFAULTS,
    SCHEDULER_CONFIG,
    TEXT_LENGTH,
    TRANSFORMER_CONFIG,
    write_denoiser,
)
from flythrough.training.photo_planes import PhotoPlanes, alternating
from flythrough.training.photos import PhotoClips
from flythrough.training.pictures import save_png, to_bytes
from flythrough.training.refill import Refill, WorldVideos
from flythrough.training.world_data import HELDOUT_SEED, WorldStream, world_videos
from flythrough.worlds.sampler import SamplerSettings

_CHUNKS = 3  # the third chunk is the first that sees a full history
_REFILL = 4
_PHOTO_EVERY = 3
_LORA_REFILL_EVERY = 8  # rendering the warps takes longer than the step
_LORA_RANK = 32
_VISIBLE_THRESHOLD = 0.1


def build_denoiser(settings: NanoRun, device: torch.device) -> tuple[ExportedTask, float]:
    """The denoiser with its text encoder, from scratch or from ``base``."""
    if settings.base is None:
        raise InputError("The denoiser needs a codec to train with; give --base FOLDER with a vae.")
    codec = load_codec(settings.base / "vae", device=device)
    transformer, prompts = _networks(settings.base, device)
    transformer.requires_grad_(True)
    prompts.text_encoder.requires_grad_(not settings.keep_text)
    refill = Refill(_videos(settings, device), codec, prompts, TEXT_LENGTH)
    trained = nn.ModuleDict({"transformer": transformer, "text": prompts.text_encoder})
    if settings.compile:
        transformer.compile_repeated_blocks(dynamic=False)
    pyramid = PyramidConfig.from_dict(SCHEDULER_CONFIG)
    task = DenoiserTask(
        "denoiser",
        transformer,
        prompts.text_encoder,
        refill,
        pyramid,
        _denoiser_settings(settings),
        trained,
        export=lambda folder: write_denoiser(folder, transformer, prompts),
    )
    task.previewer = preview(task, codec, settings, device, prompts, None)
    return task, 1e-3


def build_lora(settings: NanoRun, device: torch.device) -> tuple[ExportedTask, float]:
    """The camera adapter of the coarsest ``warp_stages`` stages, from many world clips."""
    if settings.base is None:
        raise InputError("The adapter needs a model to adapt; give --base FOLDER.")
    codec = load_codec(settings.base / "vae", device=device)
    transformer, prompts = _networks(settings.base, device)
    transformer.requires_grad_(False)
    prompts.text_encoder.requires_grad_(False)
    parameters = new_lora(transformer, rank=_LORA_RANK, seed=settings.seed)
    start = settings.base / "lora" / adapter_file(settings.band)
    if start.is_file():
        fill_lora(transformer, read_lora(start).state)
    if settings.compile:
        transformer.compile_repeated_blocks(dynamic=False)
    camera = WarpHistorySettings(threshold=_VISIBLE_THRESHOLD, mode=settings.band)
    warps = WarpSettings(**DEFAULTS["warp"])  # as the model is run
    refill = Refill(_triggered(_videos(settings, device)), codec, prompts, TEXT_LENGTH, warps)
    holder = nn.Module()
    holder.parameters_of_adapter = nn.ParameterList(parameters)
    task = DenoiserTask(
        "lora",
        transformer,
        prompts.text_encoder,
        refill,
        PyramidConfig.from_dict(SCHEDULER_CONFIG),
        _denoiser_settings(
            settings, stages=tuple(range(settings.warp_stages)), refill_every=_LORA_REFILL_EVERY
        ),
        nn.ModuleDict({"adapter": holder}),
        export=partial(_write_lora, transformer, settings),
        camera=camera,
    )
    task.previewer = preview(task, codec, settings, device, prompts, warps)
    return task, 5e-4


def _write_lora(transformer: HeliosTransformer, settings: NanoRun, folder: Path) -> None:
    target = folder / "lora" / adapter_file(settings.band)
    target.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.bfloat16() for k, v in lora_state(transformer, "camera").items()}
    metadata = origin_metadata(transformer.config, settings.band, _VISIBLE_THRESHOLD)
    metadata |= {"trigger": TRIGGER, "stages": str(settings.warp_stages)}
    save_lora(target, state, _LORA_RANK, float(_LORA_RANK), metadata)


def _networks(base: Path, device: torch.device) -> tuple[HeliosTransformer, PromptEncoder]:
    if (base / "transformer").is_dir():
        loaded = HeliosTransformer.from_pretrained(base / "transformer", torch_dtype=torch.float32)
        return loaded.to(device), PromptEncoder.from_folder(base, device=device)
    encoder = new_text_encoder()
    nn.Module.to(encoder, device)
    transformer = HeliosTransformer(**TRANSFORMER_CONFIG)
    start_weights(transformer)
    return transformer.to(device), PromptEncoder(encoder, byte_tokenizer())


def start_weights(transformer: HeliosTransformer) -> None:
    """An average predictor; the history patches start as the noisy patch, spread evenly over their
    larger kernels (Helios section 2.2)."""
    average_predictor(transformer)
    with torch.no_grad():
        kernel = transformer.patch_embedding.weight
        transformer.patch_short.weight.copy_(kernel)
        transformer.patch_mid.weight.copy_(kernel.repeat(1, 1, 2, 2, 2) / 8)
        transformer.patch_long.weight.copy_(kernel.repeat(1, 1, 4, 4, 4) / 64)
        for name in ("patch_short", "patch_mid", "patch_long"):
            nn.init.zeros_(getattr(transformer, name).bias)


def _denoiser_settings(
    settings: NanoRun, stages: tuple[int, ...] = (0, 1, 2), refill_every: int = 4
) -> DenoiserSettings:
    return DenoiserSettings(
        batch=settings.batch or 32,
        seed=settings.seed,
        stages=stages,
        refill_every=refill_every,
        latent_size=(9, settings.size[0] // 8, settings.size[1] // 8),
    )


def _videos(settings: NanoRun, device: torch.device) -> Callable[[int, int], WorldVideos]:
    return clip_videos(settings.size, settings.seed, settings.photos, device)


def clip_videos(
    size: tuple[int, int],
    seed: int,
    photos: Path | None,
    device: torch.device,
    *,
    chunks: int = _CHUNKS,
    clips: int = _REFILL,
) -> Callable[[int, int], WorldVideos]:
    """(step, rank) -> ``clips`` clips of ``chunks`` chunks: worlds and, if given, photographs."""
    shape = SamplerSettings(size=size, frames=33 * chunks, batch=clips, outputs=("rgb", "depth"))
    worlds = partial(world_videos, WorldStream(seed + 2, shape, device))
    if photos is None:
        return worlds
    planes = PhotoPlanes(
        PhotoClips(photos, device), seed + 3, frames=33 * chunks, batch=clips, size=size
    )
    return alternating(worlds, planes, _PHOTO_EVERY)


def _triggered(
    videos: Callable[[int, int], WorldVideos],
) -> Callable[[int, int], WorldVideos]:
    def source(step: int, rank: int) -> WorldVideos:
        clips = videos(step, rank)
        captions = tuple(with_trigger(caption) for caption in clips.captions)
        return WorldVideos(**{**vars(clips), "captions": captions})

    return source


def preview(
    task: DenoiserTask,
    codec: VideoCodec,
    settings: NanoRun,
    device: torch.device,
    prompts: PromptEncoder,
    warps: WarpSettings | None,
) -> Callable[[Path, int], dict[str, float]]:
    """Chunk 0 of held-out worlds, sampled in few steps and laid beside the truth."""
    shape = SamplerSettings(
        size=settings.size, frames=33 * _CHUNKS, batch=4, outputs=("rgb", "depth")
    )
    videos = partial(world_videos, WorldStream(HELDOUT_SEED, shape, device))
    if warps is not None:
        videos = _triggered(videos)  # type: ignore[assignment]
    refill = Refill(videos, codec, prompts, TEXT_LENGTH, warps)
    kept: list[EncodedClips] = []

    def write(folder: Path, step: int) -> dict[str, float]:
        if not kept:
            kept.append(refill(0, 0))
        clips = kept[0]
        latents = sample_clips(task, clips)
        made, truth = codec.decode(latents), codec.decode(clips.chunks[:, 0].float())
        rows = []
        for i in range(len(made)):
            rows += [to_bytes(truth[i, :, t]) for t in (0, 16, 32)]
            rows += [to_bytes(made[i, :, t]) for t in (0, 16, 32)]
        save_png(contact_sheet(rows, columns=6), folder / f"{task.name}-{step:06d}.png")
        error = (latents - clips.chunks[:, 0]).float().square().mean()
        return {"latent_mse": float(error)}

    return write


def sample_clips(task: DenoiserTask, clips: EncodedClips) -> Tensor:
    """Latents of chunk 0 with two steps a stage; with a camera task, the adapter and warp only in
    the stages it trains."""
    source = torch.Generator(device=clips.prefix.device).manual_seed(0)
    embedding = task.text(input_ids=clips.tokens, attention_mask=clips.mask).last_hidden_state
    embedding = embedding * clips.mask[..., None]
    native = task.native_conditioning(clips, 0, embedding)
    camera = None if task.camera is None else task.camera_conditioning(clips, 0, embedding, source)

    def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
        chosen = native
        if camera is not None:
            set_lora_active(task.transformer, "camera", stage in task.settings.stages)
            chosen = camera if stage in task.settings.stages else native
        return task.velocity(x, timestep, chosen).float()

    noise = torch.randn(clips.chunks[:, 0].shape, generator=source, device=source.device)
    latents = sample_pyramid(
        denoise,
        noise,
        lambda _stage, shape: block_noise(shape, source, task.pyramid.gamma),
        task.pyramid,
    )
    if camera is not None:
        set_lora_active(task.transformer, "camera", True)
    latents[:, :, :1] = clips.prefix
    return latents
