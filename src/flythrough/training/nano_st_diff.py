"""Recipe of nano's ST-Diff: the small WorldWarp denoiser on worlds and photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flythrough.conditioning.noise_field import FieldSettings, start_steps
from flythrough.errors import InputError
from flythrough.media.picture import contact_sheet
from flythrough.models.codec import VideoCodec, load_codec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import load_st_diff, load_transformer
from flythrough.models.st_diff import StDiff
from flythrough.models.start_weights import average_predictor
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec
from flythrough.sampling.asynchronous import noise_levels, sample_asynchronous
from flythrough.scene.settings import WarpSettings
from flythrough.training.hint_refill import HintDraw, HintRefill
from flythrough.training.loop import ExportedTask
from flythrough.training.nano import NanoRun
from flythrough.training.nano_files import DEFAULTS, TEXT_LENGTH
from flythrough.training.photo_planes import PhotoPlanes, alternating
from flythrough.training.photos import PhotoClips
from flythrough.training.pictures import save_png, to_bytes
from flythrough.training.refill import Videos
from flythrough.training.st_diff import EncodedHints, StDiffSettings, StDiffTask
from flythrough.training.world_data import HELDOUT_SEED, WorldStream, world_videos
from flythrough.worlds.sampler import SamplerSettings

ST_DIFF_CONFIG: dict[str, Any] = {
    "num_layers": 7,
    "num_attention_heads": 5,
    "attention_head_dim": 64,
    "ffn_dim": 1280,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 256,
    "freq_dim": 256,
}
"""12.6 million parameters; width and blocks are those of nano's Helios."""
CHUNK_FRAMES = 49
_REFILL = 6
_PHOTO_EVERY = 3


def build_st_diff(settings: NanoRun, device: torch.device) -> tuple[ExportedTask, float]:
    """The whole network, with the codec and the text encoder of ``base`` frozen.

    It goes on from the ST-Diff of ``base``; or begins with what fits of its Helios, the blocks
    taken at even distances; or from scratch.
    """
    if settings.base is None:
        raise InputError(
            "The ST-Diff needs a codec and a text encoder to train with; give --base FOLDER with "
            "vae, text_encoder and tokenizer."
        )
    codec = load_codec(settings.base / "vae", device=device)
    prompts = PromptEncoder.from_folder(settings.base, device=device)
    net = first_network(settings.base, prompts.width)
    nn.Module.to(net, device)
    nn.Module.requires_grad_(net, True)
    usual = DEFAULTS["worldwarp"]
    noise_field = FieldSettings(strength=usual["strength"], erosion=usual["erosion"])
    make = partial(_refill, codec=codec, prompts=prompts, noise_field=noise_field)
    refill = make(_videos(settings, device), settings.seed + 6)
    if settings.compile:
        net.compile_repeated_blocks()  # the number of different noise levels varies
    task = StDiffTask(
        net,
        refill.text([""]).detach(),
        refill,
        StDiffSettings(batch=settings.batch or 16, seed=settings.seed, shift=float(usual["shift"])),
        export=lambda folder: write_st_diff(folder, net),
    )
    shape = _shape(settings, batch=4)
    heldout = make(partial(world_videos, WorldStream(HELDOUT_SEED, shape, device)), 1)
    heldout.draw = replace(heldout.draw, overlaps=(5,), from_history=1.0, disturbed=0.0)
    task.previewer = preview(task, codec, heldout, noise_field)
    return task, 5e-4


def first_network(base: Path, width: int) -> StDiff:
    """The network to begin with; ``width`` of the text features."""
    if (base / "st_diff").is_dir():
        return load_st_diff(base / "st_diff", torch.float32)
    net = StDiff(**{**ST_DIFF_CONFIG, "text_dim": width})
    average_predictor(net)
    if (base / "transformer").is_dir():
        take_over(net, load_transformer(base / "transformer", torch.float32))
    return net


def take_over(net: StDiff, other: HeliosTransformer) -> int:
    """Copy the weights of a Helios that fit by name and shape, its blocks at even distances over
    its depth; returns how many tensors were copied."""
    depth, there = len(net.blocks), len(other.blocks)
    source = other.state_dict()
    last = max(1, depth - 1)
    picked = [round(i * (there - 1) / last) for i in range(depth)]
    copied = 0
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            known = "norm_out.scale_shift_table" if name == "scale_shift_table" else name
            if name.startswith("blocks."):
                _, number, rest = name.split(".", 2)
                known = f"blocks.{picked[int(number)]}.{rest}"
            value = source.get(known)
            if value is not None and value.shape == parameter.shape:
                parameter.copy_(value)
                copied += 1
    return copied


def write_st_diff(folder: Path, net: StDiff, shards: str = "14MB") -> None:
    """The network in bfloat16 shards of a size, as ``st_diff/`` of a model folder."""
    copy = StDiff(**{k: v for k, v in dict(net.config).items() if not k.startswith("_")})
    copy.load_state_dict({k: v.detach().cpu() for k, v in net.state_dict().items()})
    nn.Module.to(copy, torch.bfloat16)
    copy.save_pretrained(folder / "st_diff", max_shard_size=shards, safe_serialization=True)


def _refill(
    videos: Videos,
    seed: int,
    *,
    codec: VideoCodec,
    prompts: PromptEncoder,
    noise_field: FieldSettings,
) -> HintRefill:
    warps = WarpSettings(**DEFAULTS["warp"])  # as the model is run
    return HintRefill(videos, codec, prompts, TEXT_LENGTH, warps, noise_field, seed, HintDraw())


def _shape(settings: NanoRun, batch: int) -> SamplerSettings:
    return SamplerSettings(
        size=settings.size, frames=CHUNK_FRAMES, batch=batch, outputs=("rgb", "depth")
    )


def _videos(settings: NanoRun, device: torch.device) -> Videos:
    worlds = partial(
        world_videos, WorldStream(settings.seed + 4, _shape(settings, _REFILL), device)
    )
    if settings.photos is None:
        return worlds
    planes = PhotoPlanes(
        PhotoClips(settings.photos, device),
        settings.seed + 5,
        frames=CHUNK_FRAMES,
        batch=_REFILL,
        size=settings.size,
    )
    return alternating(worlds, planes, _PHOTO_EVERY)


def preview(
    task: StDiffTask,
    codec: Codec,
    refill: HintRefill,
    noise_field: FieldSettings,
    steps: int | None = None,
) -> Callable[[Path, int], dict[str, float]]:
    """Chunks of held-out worlds in ``steps`` (nano's): truth, hint and result one above the other,
    and how far hint and result are from the truth where something was rendered and where not."""
    kept: list[EncodedHints] = []

    def write(folder: Path, step: int) -> dict[str, float]:
        if not kept:
            kept.append(refill(0, 0))
        clips = kept[0]
        made = sample_clips(task, clips, noise_field, steps)
        rows = []
        for i in range(len(made)):
            for latents in (clips.clean, clips.hint, made):
                video = codec.decode(latents[i : i + 1].float())[0]
                last = video.shape[1] - 1
                rows += [to_bytes(video[:, t]) for t in (last // 6, last // 2, last)]
        save_png(contact_sheet(rows, columns=9), folder / f"stdiff-{step:06d}.png")
        return _figures(clips, made)

    return write


def sample_clips(
    task: StDiffTask, clips: EncodedHints, noise_field: FieldSettings, steps: int | None = None
) -> Tensor:
    """Latents of the clips from their hints, without guidance; ``steps`` None takes nano's."""
    steps = int(DEFAULTS["worldwarp"]["steps"]) if steps is None else steps
    start = torch.stack(
        [
            start_steps(valid[None], steps, noise_field, int(context))[0]
            for valid, context in zip(clips.valid, clips.context, strict=True)
        ]
    )
    source = torch.Generator(device=clips.hint.device).manual_seed(0)
    noise = torch.randn(clips.hint.shape, generator=source, device=source.device)

    def denoise(latents: Tensor, timesteps: Tensor) -> Tensor:
        velocity: Tensor = task.net(latents, timesteps, clips.text)
        return velocity.float()

    levels = noise_levels(steps, task.settings.shift)
    return sample_asynchronous(denoise, clips.hint.float(), noise, start, levels)


def _figures(clips: EncodedHints, made: Tensor) -> dict[str, float]:
    frames = torch.arange(clips.clean.shape[2], device=clips.context.device)
    new = (frames >= clips.context[:, None])[..., None, None].expand_as(clips.valid)
    before, after = (
        (latents.float() - clips.clean.float()).square().mean(1) for latents in (clips.hint, made)
    )
    shown, filled = new & clips.valid, new & ~clips.valid
    return {
        "hint_mse": float(before[shown].mean()),
        "rendered_mse": float(after[shown].mean()),
        "filled_mse": float(after[filled].mean()),
    }
