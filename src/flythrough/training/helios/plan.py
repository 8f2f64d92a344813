"""What a training stage is asked to do, and every check that needs no network."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flythrough.disk import read_json
from flythrough.engine.options import check_device
from flythrough.errors import InputError, WeightsError
from flythrough.models.catalog import BUNDLED, ModelFolder, find_model
from flythrough.sampling.solvers import Size
from flythrough.training.helios.clip_folder import data_files
from flythrough.training.helios.export import training_pyramid
from flythrough.training.helios.recipe import Recipe, read_recipe
from flythrough.training.helios.trajectories import check_trajectories, origin
from flythrough.training.loop import LoopSettings
from flythrough.training.parallel import Strategy
from flythrough.training.photos import photo_files
from flythrough.training.run_folder import check_same_run, edges_digest


@dataclass(frozen=True, kw_only=True)
class HeliosRun:
    """One stage: where it goes and what it starts from.

    Attributes:
        recipe: a shipped recipe's name or a TOML file; ``steps``, ``batch`` and ``seed`` override
            its [run].
        base: model whose weights are trained; nano's by default with recipes that train on worlds.
        data: folder of videos or latents, for recipes without [worlds].
        score: Helios-Base, whose LoRA becomes the critic (stage 3b).
        trajectories: folder of the teacher's trajectories (3a); in the run folder by default.
        photos: folder of photographs, for recipes with [worlds].
        deterministic: refuse operations whose results vary between runs on a GPU.
    """

    stage: str
    folder: Path
    recipe: str = "nano"
    base: str | None = None
    data: Path | None = None
    score: str | None = None
    trajectories: Path | None = None
    photos: Path | None = None
    steps: int | None = None
    batch: int | None = None
    seed: int | None = None
    device: str = "auto"
    parallel: Strategy = "ddp"
    deterministic: bool = False


@dataclass(frozen=True)
class Checked:
    """A run whose input is in order."""

    run: HeliosRun
    recipe: Recipe
    base: ModelFolder
    score: ModelFolder | None
    identity: dict[str, Any]


def check_run(asked: HeliosRun) -> Checked:
    """Everything that can be wrong with the input, before any network is loaded.

    Raises:
        InputError: an unknown recipe, a folder or model that is missing, an option without effect,
            data that are missing, trajectories that were made otherwise, or a run folder that was
            begun otherwise.
        MediaError: a folder of photographs without any.
    """
    recipe = read_recipe(asked.recipe, asked.stage)
    changes = {k: getattr(asked, k) for k in ("steps", "batch", "seed")}
    given = {k: v for k, v in changes.items() if v is not None}
    if given:
        recipe = replace(recipe, run=replace(recipe.run, **given))
    _check_effect(asked, recipe)
    base = _model(asked.base or BUNDLED, "--base")
    score = None if asked.score is None else _model(asked.score, "--score")
    check_device(asked.device)
    if asked.folder.exists() and not asked.folder.is_dir():
        raise InputError(f"The run folder {asked.folder} is a file; name a folder.")
    for option, model in (("--base", base), ("--score", score)):
        if model is not None and model.path.resolve() == (asked.folder / "model").resolve():
            raise InputError(
                f"{option} {model.path} is where this run writes its own model; give the next "
                "stage another run folder."
            )
    _check_continued(asked.folder, recipe)
    identity = _identity(asked, base, score)
    if (asked.folder / "checkpoint.safetensors").is_file():
        check_same_run(asked.folder, identity)
    if recipe.stage == "3a":
        pyramid = training_pyramid(recipe)
        made = origin(recipe.ode, latent_size(recipe), pyramid, base.digest())
        check_trajectories(trajectories_folder(asked), recipe.ode.trajectories, made)
    return Checked(asked, recipe, base, score, identity)


def trajectories_folder(asked: HeliosRun) -> Path:
    """Where the teacher's trajectories lie."""
    return asked.trajectories or asked.folder / "trajectories"


def latent_size(recipe: Recipe) -> Size:
    """Frames, height and width of a chunk's latents."""
    height, width = recipe.run.size
    return 9, height // 8, width // 8


def _identity(asked: HeliosRun, base: ModelFolder, score: ModelFolder | None) -> dict[str, Any]:
    """What a run's weights depend on beside its recipe, as digests."""
    data = None if asked.data is None else edges_digest(data_files(asked.data))
    photos = None if asked.photos is None else edges_digest(photo_files(asked.photos))
    return {
        "format": 1,
        "stage": asked.stage,
        "base_digest": base.digest(),
        "score_digest": None if score is None else score.digest(),
        "data": data,
        "photos": photos,
    }


def loop_settings(recipe: Recipe) -> LoopSettings:
    """What players share, and what is theirs unless they have their own."""
    optimiser, run = recipe.optimiser, recipe.run
    return LoopSettings(
        steps=run.steps,
        learning_rate=optimiser.learning_rate,
        seed=run.seed,
        warmup=optimiser.warmup,
        final_ratio=1.0 if optimiser.schedule == "constant" else 0.02,
        weight_decay=optimiser.weight_decay,
        betas=(optimiser.betas[0], optimiser.betas[1]),
        clip=optimiser.max_grad_norm,
        ema=0.0 if recipe.ema is None else recipe.ema.decay,
        precision=run.precision,
        log_every=min(20, max(1, run.steps // 5)),
        save_every=run.save_every,
    )


def _check_effect(asked: HeliosRun, recipe: Recipe) -> None:
    """Options that the recipe needs, and those that it would not use."""
    worlds = recipe.worlds is not None
    if asked.base is None and not worlds:
        raise InputError(
            f"The recipe {asked.recipe} starts from {recipe.start}; give its folder with --base."
        )
    if not worlds and asked.data is None:
        raise InputError(
            f"The recipe {asked.recipe} trains on videos; give their folder with --data."
        )
    unused = {
        "--data": (asked.data, worlds, "a recipe that trains on worlds"),
        "--photos": (asked.photos, not worlds, "a recipe without [worlds]"),
        "--score": (asked.score, asked.stage != "3b", f"stage {asked.stage}"),
        "--trajectories": (asked.trajectories, asked.stage != "3a", f"stage {asked.stage}"),
    }
    for option, (value, without, where) in unused.items():
        if value is not None and without:
            raise InputError(f"{option} has no effect in {where}; drop it.")
    if asked.stage == "3b" and asked.score is None:
        raise InputError(
            "Stage 3b needs the scores of a stage 1 model (Helios-Base); give it with --score."
        )
    for option, folder in (("--data", asked.data), ("--photos", asked.photos)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{option} {folder} is no folder; name one that exists.")


def _check_continued(folder: Path, recipe: Recipe) -> None:
    """A run is continued with the recipe it began with, but for the number of steps."""
    file = folder / "recipe.json"
    if not file.is_file() or not (folder / "checkpoint.safetensors").is_file():
        return
    try:
        begun = read_json(file)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete the run folder.") from error
    now = json.loads(json.dumps(recipe.as_dict()))
    constant = recipe.optimiser.schedule == "constant"
    for table, values in now.items():
        before = begun.get(table)
        if values == before:
            continue
        if not isinstance(values, dict) or not isinstance(before, dict):
            raise InputError(_changed(folder, table, before, values))
        for key, value in values.items():
            extended = constant and (table, key) == ("run", "steps")
            if value != before.get(key) and not extended:
                raise InputError(_changed(folder, f"[{table}] {key}", before.get(key), value))


def _changed(folder: Path, what: str, before: object, now: object) -> str:
    return (
        f"The run in {folder} began with {what} = {before}, not {now}; go on with the same or give "
        "another folder."
    )


def _model(name: str, option: str) -> ModelFolder:
    try:
        return find_model(name)
    except WeightsError as error:
        raise InputError(f"{option}: {error}") from error
