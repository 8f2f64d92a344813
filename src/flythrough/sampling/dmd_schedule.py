"""Noise levels and timesteps of the few-step pyramid sampler (Helios, arXiv 2603.04379).

A video is made in stages of growing size. All stages share one global noise scale from 1 (noise) to
0 (clean): each covers a piece of it, its *segment*, from a noisy start to an end that is still
noisy except in the last stage. Within a segment a local sigma runs from 0.999 at the start to 0 at
the end, and the network predicts the velocity start - end.

Numbers are plain floats in double precision; nothing here touches a device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import pairwise
from typing import Any

from flythrough.errors import InputError, WeightsError

TOP_SIGMA = 0.999
_TOP_TIMESTEP = 999.0
PATCH_AREA = 4
"""Latent pixels per token: the denoiser's patches are 1x2x2."""


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """What ``scheduler/scheduler_config.json`` says; field names are its keys.

    Attributes:
        num_train_timesteps: points of the training grid.
        stages: pyramid stages; 1 is no pyramid (Helios Base).
        stage_range: limits of the stages as shares of the grid, ``stages + 1`` of them.
        gamma: correlation of the block noise between stages, in (0, 1/3].
        use_dynamic_shifting: shift noise levels by the token count of the latent.
        time_shift_type: "linear" or "exponential" use of the shift.
        base_image_seq_len, max_image_seq_len, base_shift, max_shift: the line from token count to
            shift.

    Raises:
        WeightsError: values that make no schedule.
    """

    num_train_timesteps: int = 1000
    stages: int = 3
    stage_range: tuple[float, ...] = (0.0, 1 / 3, 2 / 3, 1.0)
    gamma: float = 1 / 3
    use_dynamic_shifting: bool = False
    time_shift_type: str = "linear"
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096
    base_shift: float = 0.5
    max_shift: float = 1.15

    def __post_init__(self) -> None:
        limits = self.stage_range
        rising = all(low < high for low, high in pairwise(limits))
        if self.stages < 1 or len(limits) != self.stages + 1 or not rising:
            raise WeightsError(
                f"the scheduler has {self.stages} stages with limits {limits}, but there must be "
                "rising limits, one more than stages; restore its scheduler_config.json"
            )
        if limits[0] != 0.0 or limits[-1] != 1.0:
            raise WeightsError(
                f"the scheduler's stage limits {limits} do not run from 0 to 1; restore its "
                "scheduler_config.json"
            )
        if not 0.0 < self.gamma <= 1 / 3 + 1e-12:
            raise WeightsError(
                f"the scheduler's gamma is {self.gamma}, but block noise exists only for gamma in "
                "(0, 1/3]; restore its scheduler_config.json"
            )
        if self.time_shift_type not in ("linear", "exponential"):
            raise WeightsError(
                f"the scheduler's time_shift_type {self.time_shift_type!r} is unknown; it must be "
                '"linear" or "exponential"'
            )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> PyramidConfig:
        """Read the contents of ``scheduler_config.json``; keys of other solvers are left aside.

        Raises:
            WeightsError: the configuration is of another sampler.
        """
        kind, solver = config.get("_class_name"), config.get("scheduler_type", "dmd")
        known_kind = kind in (None, "HeliosDMDScheduler", "HeliosScheduler")
        if not known_kind or solver not in ("dmd", "unipc", "euler"):
            raise WeightsError(
                f"the model's scheduler is {kind} of type {solver!r}, but only HeliosScheduler and "
                "HeliosDMDScheduler are known; use a Helios model"
            )
        if config.get("shift", 1.0) != 1.0:
            raise WeightsError(
                f"the scheduler has a fixed shift of {config['shift']}, but the pyramid sampler "
                "shifts by size only; set it to 1.0"
            )
        known = {f.name: config[f.name] for f in fields(cls) if config.get(f.name) is not None}
        if "stage_range" in known:
            known["stage_range"] = tuple(float(limit) for limit in known["stage_range"])
        return cls(**known)


@dataclass(frozen=True)
class StageTable:
    """One stage's segment and training grid.

    Attributes:
        original_start: global noise level where the stage's range begins.
        start: the same after allowing for the block noise that enters there.
        end: global noise level of the segment's end; 0 in the last stage.
        timesteps: the grid's timesteps, falling.
        sigmas: the local noise levels that belong to them, falling from 0.999.
    """

    original_start: float
    start: float
    end: float
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]


@dataclass(frozen=True)
class StageSchedule:
    """Steps of one stage: what the network is told, the sigma it is at, and the sigma it goes to.

    ``next_sigmas`` ends with 0: after the last step the segment's end is reached.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    next_sigmas: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.timesteps)


@lru_cache(maxsize=32)
def stage_tables(config: PyramidConfig) -> tuple[StageTable, ...]:
    """Segments and training grids of all stages, coarse to fine.

    The global grid falls linearly from 0.999. Later stages start a little noisier than their range
    says, because nearest-neighbour enlargement plus block noise adds noise. The timestep scale
    (1000 to 0) is shared out in proportion to the lengths of the segments.
    """
    n = config.num_train_timesteps
    level = [TOP_SIGMA * (n - i) / n for i in range(n)] + [0.0]
    bounds = [min(int(limit * n), n) for limit in config.stage_range]
    originals = [level[bound] for bound in bounds[:-1]]
    ends = [level[bound] for bound in bounds[1:]]
    starts = [originals[0]] + [_corrected_start(s, config.gamma) for s in originals[1:]]
    lengths = [start - end for start, end in zip(starts, ends, strict=True)]
    shares = [sum(lengths[:k]) / sum(lengths) for k in range(config.stages)]
    cuts = [int(share * n) for share in shares] + [n - 1]
    tables = []
    for k, (original, start, end) in enumerate(zip(originals, starts, ends, strict=True)):
        high, low = min(level[cuts[k]] * n, _TOP_TIMESTEP), level[cuts[k + 1]] * n
        tables.append(
            StageTable(
                original_start=original,
                start=start,
                end=end,
                timesteps=_linspace(high, low, n + 1)[:-1],
                sigmas=_linspace(TOP_SIGMA, 0.0, n + 1)[:-1],
            )
        )
    return tuple(tables)


def token_count(frames: int, height: int, width: int) -> int:
    """Tokens of a latent [.,.,frames,height,width]."""
    return frames * height * width // PATCH_AREA


def shift_mu(config: PyramidConfig, tokens: int) -> float:
    """The shift of a latent: linear in its token count, also beyond the named range."""
    slope = (config.max_shift - config.base_shift) / (
        config.max_image_seq_len - config.base_image_seq_len
    )
    return config.base_shift + slope * (tokens - config.base_image_seq_len)


def shift_factor(config: PyramidConfig, mu: float) -> float:
    """Odds factor of the shift: below 1 it moves towards less noise, above 1 towards more."""
    return math.exp(mu) if config.time_shift_type == "exponential" else mu


def timestep_at(config: PyramidConfig, stage: int, sigma: float) -> float:
    """The timestep of a local sigma that lies between grid points, as the sampler counts it."""
    grid = stage_tables(config)[stage].timesteps
    return grid[-1] + sigma * (grid[0] - grid[-1])


def dmd_schedule(
    config: PyramidConfig, stage: int, steps: int, *, mu: float | None, reference: bool = False
) -> StageSchedule:
    """Steps of one stage.

    ``steps + 1`` levels are spread evenly over the grid and the last is replaced by sigma 0.

    Args:
        mu: the shift (:func:`shift_mu`); not used without dynamic shifting, where None will do.
        reference: repeat the published inference: timesteps are cut to integers, and each sigma is
            then looked up by the timestep nearest to that integer.

    Raises:
        InputError: no step, or no shift where one is needed.
    """
    if steps < 1:
        raise InputError(
            f"stage {stage} was given {steps} steps, but every stage needs at least 1; raise it"
        )
    table = stage_tables(config)[stage]
    sigmas = _linspace(table.sigmas[0], table.sigmas[-1], steps + 1)[:-1]
    timesteps = _linspace(table.timesteps[0], table.timesteps[-1], steps + 1)[:-1]
    if config.use_dynamic_shifting:
        if mu is None:
            raise InputError(
                f"stage {stage} has no shift mu, but this scheduler shifts by size; compute it "
                "with shift_mu"
            )
        factor = shift_factor(config, mu)
        sigmas = tuple(factor / (factor + 1 / sigma - 1) for sigma in sigmas)
        timesteps = tuple(timestep_at(config, stage, sigma) for sigma in sigmas)
    if reference:
        whole = tuple(float(int(t)) for t in timesteps)
        sigmas = tuple(sigmas[_nearest(timesteps, t)] for t in whole)
        timesteps = whole
    return StageSchedule(timesteps, sigmas, (*sigmas[1:], 0.0))


def stage_size(
    config: PyramidConfig, size: tuple[int, int, int], stage: int, *, lagging: bool = False
) -> tuple[int, int, int]:
    """(frames, height, width) in ``stage`` of a latent of full ``size``; ``lagging`` gives the
    size before the stage's enlargement, from which the published pipelines take the shift."""
    shrink = config.stages - 1 - (max(stage - 1, 0) if lagging else stage)
    return size[0], size[1] >> shrink, size[2] >> shrink


def pyramid_schedules(
    config: PyramidConfig,
    size: tuple[int, int, int],
    steps: Sequence[int],
    *,
    amplify: bool = False,
    reference: bool = False,
) -> tuple[StageSchedule, ...]:
    """Schedules of all stages for latents of ``size`` (frames, height, width) at full resolution.

    The shift of a stage follows from its own size, as in training. ``reference`` repeats the
    published inference, which takes the size before enlargement (one stage behind) and integer
    timesteps. ``amplify`` doubles the steps of every stage.

    Raises:
        InputError: not one positive step count per stage.
    """
    if len(steps) != config.stages:
        raise InputError(
            f"{len(steps)} step counts were given for a model with {config.stages} pyramid stages; "
            "give one per stage, coarse to fine"
        )
    made = []
    for stage, count in enumerate(steps):
        mu = shift_mu(config, token_count(*stage_size(config, size, stage, lagging=reference)))
        total = 2 * count if amplify else count
        made.append(dmd_schedule(config, stage, total, mu=mu, reference=reference))
    return tuple(made)


def _corrected_start(original: float, gamma: float) -> float:
    signal = 1 - original
    return 1 - signal / (math.sqrt(1 + 1 / gamma) * original + signal)


def _linspace(first: float, last: float, count: int) -> tuple[float, ...]:
    step = (last - first) / (count - 1)
    return (*(first + step * i for i in range(count - 1)), last)


def _nearest(values: Sequence[float], target: float) -> int:
    return min(range(len(values)), key=lambda i: abs(values[i] - target))
