"""Solvers: how a stage goes from its start to its end, step by step.

The distilled models take the few steps of the DMD sampler; Base and Mid are integrated with UniPC
(Zhao et al. 2023), which is diffusers' own implementation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from flythrough.errors import InputError, WeightsError
from flythrough.sampling.dmd_schedule import (
    TOP_SIGMA,
    PyramidConfig,
    pyramid_schedules,
    shift_mu,
    stage_size,
    token_count,
)

Size = tuple[int, int, int]


class Solver(Protocol):
    """One chunk's integration. ``begin`` opens a stage, then ``step`` is called once per timestep
    that it returned."""

    @property
    def total(self) -> int:
        """Steps of all stages."""
        ...

    def begin(self, stage: int, start: Tensor) -> Sequence[float]:
        """Timesteps of ``stage``, which begins at ``start`` [B,C,T,h,w]."""
        ...

    def step(self, index: int, x: Tensor, velocity: Tensor) -> Tensor:
        """From ``x`` at timestep ``index`` of the stage to the next level."""
        ...


class DMDSolver:
    """Every step estimates the segment's end and mixes the stage's own start back in.

    Args:
        size: (frames, height, width) of the full latent.
        amplify: twice the steps in every stage.
        reference: published timetable, see :func:`pyramid_schedules`.
    """

    def __init__(
        self,
        config: PyramidConfig,
        size: Size,
        steps: Sequence[int],
        *,
        amplify: bool = False,
        reference: bool = False,
    ) -> None:
        self._schedules = pyramid_schedules(
            config, size, steps, amplify=amplify, reference=reference
        )
        self._schedule = self._schedules[0]
        self._start = torch.empty(0)

    @property
    def total(self) -> int:
        return sum(len(schedule) for schedule in self._schedules)

    def begin(self, stage: int, start: Tensor) -> Sequence[float]:
        self._schedule, self._start = self._schedules[stage], start
        return self._schedule.timesteps

    def step(self, index: int, x: Tensor, velocity: Tensor) -> Tensor:
        sigma, following = self._schedule.sigmas[index], self._schedule.next_sigmas[index]
        return dmd_step(x, velocity, self._start, sigma, following)


class UniPCSolver:
    """Second-order predictor-corrector, restarted in every stage.

    Args:
        scheduler: contents of ``scheduler_config.json`` of a ``HeliosScheduler``.
        size: (frames, height, width) of the full latent.
        reference: take the shift from the stage before and cut timesteps to integers in pyramids,
            as the published pipeline does.
    """

    def __init__(
        self,
        scheduler: Mapping[str, Any],
        config: PyramidConfig,
        size: Size,
        steps: Sequence[int],
        *,
        reference: bool = False,
    ) -> None:
        from diffusers.schedulers.scheduling_helios import HeliosScheduler

        if len(steps) != config.stages or min(steps) < 1:
            raise InputError(
                f"The step counts {','.join(map(str, steps))} do not fit a model of "
                f"{config.stages} pyramid stages; give one positive count per stage."
            )
        known = {k: v for k, v in scheduler.items() if not k.startswith("_")}
        self._scheduler = HeliosScheduler(**known)
        self._config, self._size, self._steps = config, size, tuple(steps)
        self._reference = reference
        self._levels: Tensor = torch.empty(0)

    @property
    def total(self) -> int:
        return sum(self._steps)

    def begin(self, stage: int, start: Tensor) -> Sequence[float]:
        del start
        size = stage_size(self._config, self._size, stage, lagging=self._reference)
        mu = shift_mu(self._config, token_count(*size))
        count = self._steps[stage]
        if self._config.stages == 1:
            sigmas = np.linspace(TOP_SIGMA, 0.0, count + 1)[:-1]
            self._scheduler.set_timesteps(count, sigmas=sigmas, mu=mu)
        else:
            self._scheduler.set_timesteps(count, stage, mu=mu)
        self._scheduler.set_begin_index(0)
        self._levels = self._scheduler.timesteps
        whole = self._reference and self._config.stages > 1
        return [float(int(t)) if whole else float(t) for t in self._levels]

    def step(self, index: int, x: Tensor, velocity: Tensor) -> Tensor:
        moved: Tensor = self._scheduler.step(
            velocity.to(x), self._levels[index], x, return_dict=False
        )[0]
        return moved


def dmd_step(x: Tensor, velocity: Tensor, start: Tensor, sigma: float, following: float) -> Tensor:
    """From local level ``sigma`` to ``following``: estimate the end, mix the start back in."""
    end = x - sigma * velocity.to(x)
    return (1 - following) * end + following * start


def new_solver(
    scheduler: Mapping[str, Any],
    config: PyramidConfig,
    size: Size,
    steps: Sequence[int],
    *,
    amplify: bool = False,
    reference: bool = False,
) -> Solver:
    """The solver that a ``scheduler_config.json`` names.

    Raises:
        WeightsError: a scheduler of another family.
        InputError: step counts that do not fit.
    """
    if is_distilled(scheduler):
        return DMDSolver(config, size, steps, amplify=amplify, reference=reference)
    kind = scheduler.get("scheduler_type", "unipc")
    if scheduler.get("_class_name") != "HeliosScheduler" or kind not in ("unipc", "euler"):
        raise WeightsError(
            f"The model's scheduler is {scheduler.get('_class_name')} of type {kind!r}, but only "
            "HeliosScheduler and HeliosDMDScheduler are known; use a Helios model."
        )
    if amplify:
        raise InputError("Doubling the first chunk's steps works with distilled models alone.")
    return UniPCSolver(scheduler, config, size, steps, reference=reference)


def is_distilled(scheduler: Mapping[str, Any]) -> bool:
    """Whether a scheduler configuration is of a few-step (DMD) model."""
    kind, solver = scheduler.get("_class_name"), scheduler.get("scheduler_type")
    return solver == "dmd" or (kind in (None, "HeliosDMDScheduler") and solver is None)
