"""From a checked run to its task: networks, players and data."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from flythrough import seeds
from flythrough.errors import InputError, WeightsError
from flythrough.models.catalog import ModelFolder
from flythrough.models.codec import VideoCodec
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import load_transformer
from flythrough.models.needs import cast
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec, load_any_codec
from flythrough.sampling.solvers import Size
from flythrough.training.helios import clip_folder, gan
from flythrough.training.helios.distill import CRITIC, Cast, DistillTask
from flythrough.training.helios.export import training_pyramid, write_model
from flythrough.training.helios.flow import FlowTask
from flythrough.training.helios.material import Source
from flythrough.training.helios.networks import prepare, start_from_wan
from flythrough.training.helios.ode import OdeTask
from flythrough.training.helios.plan import Checked, latent_size, loop_settings, trajectories_folder
from flythrough.training.helios.recipe import Recipe
from flythrough.training.helios.recipe_tables import Adapter
from flythrough.training.helios.trajectories import (
    make_trajectory,
    origin,
    trajectory_file,
    write_trajectory,
)
from flythrough.training.helios.worlds import WorldSource
from flythrough.training.loop import precision, rank_and_world
from flythrough.training.players import Player
from flythrough.training.refill import Refill
from flythrough.training.trainer import PlayedTask

_TRAINED = "trained"


def build_task(checked: Checked, device: torch.device) -> PlayedTask:
    """The stage's task, with its networks on ``device``.

    Raises:
        InputError: data that do not fit the model.
    """
    recipe, folder = checked.recipe, checked.base
    network = load_network(folder, recipe, device)
    source = _source(checked, network, device)
    size = latent_size(checked.recipe)
    pyramid = training_pyramid(recipe)
    files = _trajectories(checked, network, source, size) if recipe.stage == "3a" else []
    trained = prepare(
        network,
        recipe.adapter,
        name=_TRAINED,
        seed=recipe.run.seed,
        checkpointing=recipe.run.checkpointing,
    )
    shared = loop_settings(recipe)
    export = partial(_export, network=network, recipe=recipe, base=folder.path)
    seed, drop = recipe.run.seed, recipe.text.drop_caption
    start = 0 if recipe.ema is None else recipe.ema.start
    if recipe.stage in ("1", "2"):
        player = Player("denoiser", trained, shared, eps=recipe.optimiser.eps, ema_start=start)
        return FlowTask(
            recipe.stage, network, player, source, pyramid, recipe.flow, recipe.history, export,
            seed=seed, drop_caption=drop,
        )  # fmt: skip
    if recipe.stage == "3a":
        player = Player("student", trained, shared, eps=recipe.optimiser.eps, ema_start=start)
        return OdeTask(
            network, player, files, pyramid, size, recipe.ode, export,
            batch=recipe.run.batch, seed=seed, ranks=_ranks(recipe),
        )  # fmt: skip
    cast = _cast(checked, network, trained, device)
    return DistillTask(
        cast, source, pyramid, recipe.dmd, recipe.gan, recipe.history, size, export,
        seed=seed, drop_caption=drop,
    )  # fmt: skip


def load_network(folder: ModelFolder, recipe: Recipe, device: torch.device) -> HeliosTransformer:
    """The denoiser of a folder, in bfloat16 where only LoRA on it is trained in that precision; a
    Wan 2.1 text-to-video transformer becomes Helios."""
    small = recipe.run.precision == "bf16" and recipe.adapter.rank > 0
    dtype = torch.bfloat16 if small else torch.float32
    part = folder.path / "transformer"
    try:
        kind = json.loads((part / "config.json").read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{part}/config.json cannot be read ({error}); restore it.") from error
    if kind != "WanTransformer3DModel":
        return load_transformer(part, dtype, device)
    from diffusers import WanTransformer3DModel

    wan = WanTransformer3DModel.from_pretrained(part, torch_dtype=dtype, local_files_only=True)
    network = start_from_wan(wan)
    cast(network, dtype, keep=tuple(network._keep_in_fp32_modules))  # as `load_transformer` does
    torch.nn.Module.to(network, device)
    return network


def _cast(
    checked: Checked,
    generator: HeliosTransformer,
    trained: list[torch.nn.Parameter],
    device: torch.device,
) -> Cast:
    recipe, dmd = checked.recipe, checked.recipe.dmd
    assert checked.score is not None
    critic_adapter = Adapter(
        rank=dmd.critic_rank,
        alpha=dmd.critic_alpha,
        patch_embedding="frozen",
        patch_history="frozen",
    )
    with_adapter = replace(recipe, adapter=critic_adapter)
    score = load_network(checked.score, with_adapter, device)
    weights = prepare(
        score,
        critic_adapter,
        name=CRITIC,
        seed=seeds.fold(recipe.run.seed, CRITIC),
        checkpointing=recipe.run.checkpointing,
    )
    heads = None
    if recipe.gan is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.run.seed)
            heads = gan.Heads(score, recipe.gan.blocks, recipe.gan.width).to(device)
        weights += list(heads.parameters())
    shared = loop_settings(recipe)
    start = 0 if recipe.ema is None else recipe.ema.start
    eps = recipe.optimiser.eps
    critic = replace(
        shared, learning_rate=dmd.critic_learning_rate, clip=dmd.critic_max_grad_norm, ema=0.0
    )
    players = (
        Player("generator", trained, shared, every=dmd.generator_every, eps=eps, ema_start=start),
        Player(CRITIC, weights, critic, eps=eps),
    )
    return Cast(generator, score, heads, players)


def _source(checked: Checked, network: HeliosTransformer, device: torch.device) -> Source:
    """Worlds for recipes that have them, else the folder of clips."""
    recipe, base = checked.recipe, checked.base.path
    text, run = recipe.text, recipe.run
    keep = recipe.worlds is not None
    prompts = PromptEncoder.from_folder(base, device=device, keep=keep)
    if prompts.width != network.config["text_dim"]:
        raise InputError(
            f"The text encoder of {base} gives {prompts.width} channels, but the denoiser reads "
            f"{network.config['text_dim']}; use parts of one model."
        )
    if recipe.worlds is None:
        return _clips(checked, network, prompts, device)
    from flythrough.training.nano_denoiser import clip_videos

    codec = load_any_codec(base / "vae", device)
    if not isinstance(codec, VideoCodec):
        raise InputError(
            f"The recipe's [worlds] need the small codec, but {base} has the Wan codec; train on a "
            "folder of clips."
        )
    worlds = recipe.worlds
    height, width = run.size
    videos = clip_videos(
        (height, width),
        run.seed,
        checked.run.photos,
        device,
        chunks=worlds.chunks,
        clips=worlds.clips,
    )
    refill = Refill(videos, codec, prompts, text.max_length)
    plain = prompts.encode([text.negative_prompt], text.max_length)
    return WorldSource(refill, prompts, plain, worlds, batch=run.batch, seed=run.seed)


def _clips(
    checked: Checked, network: HeliosTransformer, prompts: PromptEncoder, device: torch.device
) -> Source:
    """Latents of a folder; videos in it are encoded once, into the run folder."""
    recipe, data = checked.recipe, checked.run.data
    assert data is not None
    text, run = recipe.text, recipe.run
    videos = clip_folder.captioned_videos(data)
    folder = checked.run.folder / "latents" if videos else data
    own = [folder / f"{video.stem}.safetensors" for video, _ in videos] or None
    size = latent_size(checked.recipe)
    if videos:
        rank, world = rank_and_world()
        codec: Codec = load_any_codec(checked.base.path / "vae", device)
        for video, caption in videos[rank::world]:
            clip_folder.encode_video(
                video,
                caption,
                folder / f"{video.stem}.safetensors",
                codec,
                prompts,
                size=(run.size[0], run.size[1]),
                max_length=text.max_length,
                dtype=torch.bfloat16 if run.precision == "bf16" else torch.float32,
                device=device,
                model=checked.base.digest(),
            )
        if world > 1:
            torch.distributed.barrier()
    channels = int(network.config["in_channels"])
    files = clip_folder.check_clips(
        folder, (channels, *size[1:]), (text.max_length, prompts.width), own
    )
    plain = prompts.encode([text.negative_prompt], text.max_length)
    prompts.release()
    return clip_folder.ClipFolder(
        files, plain, batch=run.batch, seed=run.seed, ranks=_ranks(recipe)
    )


def _trajectories(
    checked: Checked, teacher: HeliosTransformer, source: Source, size: Size
) -> list[Path]:
    """The teacher's trajectories; those that are missing are made, shared out over processes."""
    recipe, run = checked.recipe, checked.run
    folder = trajectories_folder(run)
    made = origin(recipe.ode, size, training_pyramid(recipe), checked.base.digest())
    files = [trajectory_file(folder, number) for number in range(recipe.ode.trajectories)]
    rank, world = rank_and_world()
    dtype = torch.bfloat16 if recipe.run.precision == "bf16" else torch.float32
    device = source.plain.device
    teacher.requires_grad_(False).eval()
    for number in range(rank, len(files), world):
        if files[number].exists():
            continue
        text = source.prompt(number)
        with precision(recipe.run.precision, device):
            tensors = make_trajectory(
                teacher,
                text,
                source.plain,
                size,
                training_pyramid(recipe),
                recipe.ode,
                seeds.fold(recipe.run.seed, "trajectory", number),
            )
        write_trajectory(files[number], tensors, dtype, made)
    if world > 1:
        torch.distributed.barrier()
    return files


def _ranks(recipe: Recipe) -> int:
    return rank_and_world()[1] * recipe.run.accumulate


def _export(folder: Path, *, network: HeliosTransformer, recipe: Recipe, base: Path) -> None:
    write_model(folder, network, _TRAINED, recipe, base, keep=rank_and_world()[0] == 0)
