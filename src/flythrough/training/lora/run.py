"""A training run from request to adapter: check, prepare, preview, train, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from flythrough.cameras.formats import fixed_cameras_in, fixed_notes
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.disk import read_json
from flythrough.engine.build import pick_device, pick_dtype
from flythrough.errors import InputError, WeightsError
from flythrough.generators.warp_as_history import CAMERA_ADAPTER
from flythrough.models.adapter_origin import origin_metadata
from flythrough.models.adapters import lora_state, new_lora
from flythrough.models.loading import load_transformer
from flythrough.models.lora_files import save_lora
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.training.clip_sampling import Clip
from flythrough.training.loop import (
    Loop,
    LoopSettings,
    Record,
    rank_and_world,
    start_processes,
)
from flythrough.training.lora.clips import data_digest, find_sources, read_clip
from flythrough.training.lora.memory import StepNeed, step_need
from flythrough.training.lora.prepare import (
    Notify,
    Preparation,
    Progress,
    check_geometry_source,
)
from flythrough.training.lora.previews import write_rows
from flythrough.training.lora.report import write_report
from flythrough.training.lora.sampling import Sampler
from flythrough.training.lora.settings import (
    LoraPlan,
    LoraRequest,
    check_lora,
)
from flythrough.training.lora.task import CameraTask
from flythrough.training.run_folder import alone, check_same_run, write_identity

OnRecord = Callable[[Record, int], None]
"""Called after each step with its record and the number of all steps."""

_WARMUP = 20
_WEIGHT_DECAY = 0.01
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Trained:
    """What a run left: the ``adapter`` (None after a dry run), preview pictures and figures."""

    folder: Path
    adapter: Path | None
    previews: tuple[Path, ...]
    figures: dict[str, Any] = field(default_factory=dict)


def train_lora(
    request: LoraRequest, notify: Notify, progress: Progress, on_record: OnRecord
) -> Trained:
    """Train the camera adapter; a run that was stopped goes on where its last checkpoint lies.

    Raises:
        InputError: anything in the request that cannot work, before a network is loaded.
        WeightsError: the model lacks a part that is needed.
    """
    plan = check_lora(request)
    sources = find_sources(request)
    device = start_processes(pick_device(request.device))
    rank, world = rank_and_world()
    told = notify if rank == 0 else _silent
    clips = [read_clip(source, plan) for source in sources]
    for source in sources:
        if source.camera is not None:
            for text in fixed_notes(source.camera, fixed_cameras_in(source.camera)):
                told(text)
    check_geometry_source(plan, clips)
    identity = plan.identity(data_digest(sources), world)
    begun = check_same_run(request.folder, identity)
    shown = progress if rank == 0 else _hidden
    prepared = Preparation(plan, clips, device, told, shown)
    history = WarpHistorySettings(threshold=plan.threshold, mode=plan.mode)  # type: ignore[arg-type]
    _say_plan(plan, len(prepared.draws), world, told)
    prepared.check_disk()
    if not request.dry_run:
        need = _need(plan, prepared, history, device)
        told(f"{need.sentence()}.")
        need.check(device, plan.checkpointing)
    with alone(request.folder, rank):
        prepared.make_geometry()
        previews = tuple(prepared.write_previews(keep=begun and not request.dry_run))
        if request.dry_run:
            return Trained(request.folder, None, previews)
        if rank == 0:
            write_identity(request.folder, identity)
        return _train(plan, prepared, history, identity, previews, told, on_record)


def _train(
    plan: LoraPlan,
    prepared: Preparation,
    history: WarpHistorySettings,
    identity: dict[str, Any],
    previews: tuple[Path, ...],
    notify: Notify,
    on_record: OnRecord,
) -> Trained:
    request, device = plan.request, prepared.device
    embeddings = prepared.make_embeddings()
    items, heldout = prepared.make_items([own[0][1] for own in embeddings])
    sample = prepared.rendered((0, Clip("forward", 0)))
    prepared.forget()
    folder = plan.model.path / "transformer"
    transformer = load_transformer(folder, pick_dtype(device), device).eval()
    transformer.requires_grad_(False)
    parameters = new_lora(
        transformer,
        request.rank,
        plan.alpha,
        request.seed,
        CAMERA_ADAPTER,
        reference=request.reference,
    )
    if plan.checkpointing:
        transformer.enable_gradient_checkpointing()
    scheduler = read_json(plan.model.path / "scheduler" / "scheduler_config.json")
    sampler = Sampler(
        folder=plan.model,
        transformer=transformer,
        scheduler=scheduler,
        item=sample,
        caption=prepared.clips[0].caption,
        embeddings=embeddings[0],
        history=history,
        stages=len(plan.stages),
        seed=request.seed,
    )
    task = CameraTask(
        transformer,
        parameters,
        items,
        heldout,
        PyramidConfig.from_dict(scheduler),
        stages=plan.stages,
        history=history,
        seed=request.seed,
        preview=lambda run, step: _sample(sampler, run, step),
    )
    loop = Loop(task, _loop_settings(plan), request.folder, device)
    if loop.resume():
        notify(f"the run in {request.folder} goes on after step {loop.step}.")
    loop.run(lambda record: on_record(record, plan.steps))
    if loop.rank != 0:
        return Trained(request.folder, plan.adapter, previews)
    metadata = origin_metadata(transformer.config, plan.mode, plan.threshold)
    metadata |= {
        "trigger": plan.model.defaults.prompt_trigger,
        "stages": str(len(plan.stages)),
        "steps": str(loop.step),
        "seed": str(request.seed),
    }
    state = lora_state(transformer, CAMERA_ADAPTER)
    save_lora(plan.adapter, state, request.rank, plan.alpha, metadata)
    notify(f"{plan.adapter} is written; measuring before and after for the report.")
    figures = write_report(plan, task, sampler, identity)
    return Trained(request.folder, plan.adapter, previews, figures)


def _loop_settings(plan: LoraPlan) -> LoopSettings:
    """The published optimiser: AdamW at a constant rate after 20 steps, weights not averaged."""
    return LoopSettings(
        steps=plan.steps,
        learning_rate=plan.learning_rate,
        seed=plan.request.seed,
        warmup=_WARMUP,
        final_ratio=1.0,
        weight_decay=_WEIGHT_DECAY,
        betas=_BETAS,
        ema=0.0,
        log_every=1,
        save_every=plan.request.save_every,
        preview_every=plan.request.sample_every,
    )


def _sample(sampler: Sampler, folder: Path, step: int) -> dict[str, float]:
    frames = sampler.chunk(adapter=True)
    rows = {**sampler.rows(), f"step {step}": frames}
    write_rows(folder / "samples" / f"step-{step:06d}.png", rows)
    found = sampler.psnr(frames)
    return {} if found is None else {"psnr": found}


def _need(
    plan: LoraPlan, prepared: Preparation, history: WarpHistorySettings, device: torch.device
) -> StepNeed:
    folder = plan.model.path / "transformer"
    finest = len(plan.model.defaults.steps) - 1 - plan.stages[-1]
    try:
        return step_need(
            folder,
            pick_dtype(device),
            prepared.latent_shape(),
            2**finest,
            history,
            rank=plan.request.rank,
            checkpointing=plan.checkpointing,
            text_length=plan.model.defaults.max_sequence_length,
        )
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise WeightsError(
            f"{folder / 'config.json'} cannot be read ({error}); restore the file."
        ) from error


def _say_plan(plan: LoraPlan, items: int, world: int, notify: Notify) -> None:
    request = plan.request
    processes = "" if world == 1 else f", {world} processes"
    notify(
        f"{plan.steps} steps over {items} drawn windows at {plan.size[0]}x{plan.size[1]}, rank "
        f"{request.rank}, alpha {plan.alpha:g}, rate {plan.learning_rate:g}, warp in the "
        f"{request.band} band, threshold {plan.threshold:g}, {len(plan.stages)} pyramid "
        f"stage(s){processes}."
    )


def _silent(text: str) -> None:
    del text


def _hidden(label: str, done: int, total: int) -> None:
    del label, done, total
