"""Stage 3a's data: how the many-step teacher gets from noise to a chunk, stage by stage.

The teacher (Helios-Mid, UniPC with CFG-Zero*) is sampled chunk after chunk; kept are the latents at
the noise levels that the few-step student will visit, and where each pyramid stage ends. A
trajectory is a function of the teacher, its prompt and (seed, number).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flythrough import seeds
from flythrough.disk import replacing
from flythrough.errors import InputError
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig, pyramid_schedules, timestep_at
from flythrough.sampling.guidance import Guidance
from flythrough.sampling.noise import block_noise
from flythrough.sampling.pyramid import Denoise, sample_pyramid
from flythrough.sampling.solvers import Size, UniPCSolver
from flythrough.training.denoiser import Conditioned
from flythrough.training.helios.clip_folder import windows_around
from flythrough.training.helios.material import conditioned, velocity
from flythrough.training.helios.recipe_tables import Ode

_NEAR = 1e-3


class RecordingUniPC(UniPCSolver):
    """UniPC that also steps on given levels, and keeps the latents found there.

    ``kept[k]`` are the latents of stage k at its levels, in order; ``ends[k]`` where it ended.
    """

    def __init__(
        self,
        scheduler: Mapping[str, Any],
        config: PyramidConfig,
        size: Size,
        steps: Sequence[int],
        levels: Sequence[Sequence[float]],
    ) -> None:
        super().__init__(scheduler, config, size, steps)
        self._wanted = levels
        self._stage = 0
        self._places: list[int] = []
        self.kept: list[list[Tensor]] = [[] for _ in levels]
        self.ends: list[Tensor] = []

    def begin(self, stage: int, start: Tensor) -> Sequence[float]:
        super().begin(stage, start)
        self._stage = stage
        wanted = self._wanted[stage]
        own = [float(sigma) for sigma in self._scheduler.sigmas[:-1]]
        sigmas = merged_levels(own, wanted)
        timesteps = [timestep_at(self._config, stage, sigma) for sigma in sigmas]
        self._places = [sigmas.index(sigma) for sigma in wanted]
        self._scheduler.sigmas = torch.tensor([*sigmas, 0.0], dtype=torch.float64)
        self._scheduler.timesteps = torch.tensor(timesteps, dtype=torch.float64)
        self._scheduler.num_inference_steps = len(sigmas)
        self._levels = self._scheduler.timesteps
        return timesteps

    def step(self, index: int, x: Tensor, velocity: Tensor) -> Tensor:
        if index in self._places:
            self.kept[self._stage].append(x)
        moved = super().step(index, x, velocity)
        if index == len(self._levels) - 1:
            self.ends.append(moved)
        return moved


def merged_levels(own: Sequence[float], wanted: Sequence[float]) -> list[float]:
    """Falling levels of both lists; of ``own``, those very near a wanted one give way to it."""
    others = [s for s in own if all(abs(s - level) > _NEAR for level in wanted)]
    return sorted([*others, *wanted], reverse=True)


def student_levels(
    config: PyramidConfig, size: Size, count: int
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """(sigmas, timesteps) of ``count`` steps in each pyramid stage, shifted by its own size."""
    schedules = pyramid_schedules(config, size, (count,) * config.stages)
    return tuple(s.sigmas for s in schedules), tuple(s.timesteps for s in schedules)


def teacher_scheduler(config: PyramidConfig) -> dict[str, Any]:
    """The scheduler file of a teacher with the noise levels of ``config``."""
    return {
        "num_train_timesteps": config.num_train_timesteps,
        "stages": config.stages,
        "stage_range": list(config.stage_range),
        "gamma": config.gamma,
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "use_dynamic_shifting": config.use_dynamic_shifting,
        "time_shift_type": config.time_shift_type,
        "scheduler_type": "unipc",
    }


@torch.no_grad()
def make_trajectory(
    teacher: HeliosTransformer,
    embedding: Tensor,
    plain: Tensor,
    size: Size,
    config: PyramidConfig,
    settings: Ode,
    seed: int,
) -> dict[str, Tensor]:
    """One trajectory from text: ``level{k}`` [S,n,16,9,h,w] (latents of pyramid stage k at its n
    levels), ``end{k}`` [S,16,9,h,w] and ``prompt_embeds`` [L,D], float32 on the CPU.

    Args:
        embedding, plain: features [1,L,D] of prompt and negative prompt.
        size: frames, height and width of a chunk's latents.
    """
    frames, height, width = size
    channels, device = int(teacher.config["in_channels"]), embedding.device
    levels, _ = student_levels(config, size, settings.levels)
    guidance = Guidance(scale=settings.guidance, zero_star=settings.guidance > 1, zero_steps=1)
    kept: dict[str, list[Tensor]] = {}
    done = torch.zeros(0, channels, frames, height, width, device=device)
    for chunk in range(settings.chunks):
        given = _text_started(done, embedding)
        without = _text_started(done, plain)
        steps = (settings.teacher_steps,) * config.stages
        solver = RecordingUniPC(teacher_scheduler(config), config, size, steps, levels)
        source = seeds.generator(seed, "trajectory", chunk)
        noise = torch.randn(1, channels, *size, generator=source).to(device)
        latents = sample_pyramid(
            _guided(teacher, given, without, guidance),
            noise,
            partial(
                _fresh_block, seeds.fold(seed, "trajectory-block", chunk), config.gamma, device
            ),
            config,
            solver=solver,
        )
        done = torch.cat((done, latents))
        for stage, (found, end) in enumerate(zip(solver.kept, solver.ends, strict=True)):
            kept.setdefault(f"level{stage}", []).append(torch.cat(found))
            kept.setdefault(f"end{stage}", []).append(end[0])
    tensors = {name: torch.stack(parts).float().cpu() for name, parts in kept.items()}
    return {**tensors, "prompt_embeds": embedding[0].float().cpu()}


def _guided(
    teacher: HeliosTransformer, given: Conditioned, without: Conditioned, guidance: Guidance
) -> Denoise:
    """The teacher's velocity under guidance; counts the steps of each stage."""
    place = [-1, 0]

    def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
        place[:] = [stage, place[1] + 1 if stage == place[0] else 0]
        moved = velocity(teacher, x, timestep, given)
        if not guidance.active:
            return moved
        bare = velocity(teacher, x, timestep, without)
        return guidance.combined(moved, bare, stage, place[1])

    return denoise


def _fresh_block(
    seed: int, gamma: float, device: torch.device, stage: int, shape: torch.Size
) -> Tensor:
    return block_noise(shape, seeds.generator(seed, stage), gamma).to(device)


def _text_started(done: Tensor, embedding: Tensor) -> Conditioned:
    """Conditioning of the chunk after ``done`` [S,16,9,h,w] of a video started from text."""
    past = torch.cat((done, done.new_zeros(1, *done.shape[1:])))
    before, prefix, _ = windows_around(past, len(done))
    return conditioned(before[None], prefix[None], embedding)


def trajectory_file(folder: Path, number: int) -> Path:
    """Where trajectory ``number`` lies."""
    return folder / f"{number:06d}.safetensors"


def origin(settings: Ode, size: Size, config: PyramidConfig, teacher: str) -> dict[str, Any]:
    """What trajectories depend on beside prompt and seed; ``teacher`` is a digest of its folder."""
    return {
        "teacher": teacher,
        "size": list(size),
        "shift": config.time_shift_type if config.use_dynamic_shifting else "off",
        "chunks": settings.chunks,
        "levels": settings.levels,
        "teacher_steps": settings.teacher_steps,
        "guidance": settings.guidance,
    }


def check_trajectories(folder: Path, count: int, wanted: Mapping[str, Any]) -> None:
    """Trajectories that are there must be what this run would make (:func:`origin`).

    Raises:
        InputError: one was made otherwise, does not say how, or cannot be read.
    """
    if not folder.is_dir():
        return
    for number in range(count):
        file = trajectory_file(folder, number)
        if not file.is_file():
            continue
        try:
            with safe_open(file, framework="pt") as opened:
                made = json.loads((opened.metadata() or {}).get("origin", "{}"))
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"The trajectory {file} cannot be read ({error}); delete it, and it is made again."
            ) from error
        for name, value in wanted.items():
            if made.get(name) != value:
                raise InputError(
                    f"The trajectory {file} was made with {name} = {made.get(name)!r}, but this "
                    f"run needs {value!r}; delete the trajectories or name another folder with "
                    "--trajectories."
                )


def write_trajectory(
    file: Path, tensors: dict[str, Tensor], dtype: torch.dtype, made: Mapping[str, Any]
) -> None:
    """Save what :func:`make_trajectory` gave, and how it was ``made`` (:func:`origin`)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        stored = {k: v.to(dtype).contiguous() for k, v in tensors.items()}
        save_file(stored, partial, metadata={"origin": json.dumps(made)})


def read_trajectory(file: Path) -> dict[str, Tensor]:
    """The tensors of a trajectory as float32.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key).float() for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"The trajectory {file} cannot be read ({error}); delete it, and it is made again."
        ) from error
    if "level0" not in tensors or tensors["level0"].ndim != 6:
        raise InputError(f"{file} is no trajectory; delete it, and it is made again.")
    return tensors
