"""Asynchronous diffusion: cells of one chunk at different noise levels (WorldWarp, section 4.2).

A schedule of falling noise levels is shared by all cells, but each cell joins it at its own start
step. Before it, the cell waits at the level of its start; when the others have come down to it, all
go on together. A cell whose start is the number of steps stays clean throughout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flythrough.conditioning.noise_field import patch_steps
from flythrough.errors import InputError

TRAIN_LEVELS = 1000

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(latents [B,C,T,h,w], timesteps [B,T,h/2,w/2]) -> velocity like the latents; guidance is its
own affair."""


def shifted(levels: np.ndarray, shift: float) -> np.ndarray:
    """Noise levels moved towards 1: s x / (1 + (s - 1) x)."""
    return np.asarray(shift * levels / (1 + (shift - 1) * levels))


def noise_levels(steps: int, shift: float = 5.0) -> Tensor:
    """The ``steps`` levels of a run and a final 0: float32 [steps + 1], from 1 downwards.

    The range is that of the 1000 training levels after the shift, and the evenly spaced steps in
    it are shifted again. That is what diffusers' flow-match Euler scheduler does when its ``shift``
    is set at construction; the released weights were run with it.

    Raises:
        InputError: no steps, or a shift that is not positive.
    """
    if steps < 1 or not shift > 0:
        raise InputError(
            f"{steps} steps with a shift of {shift:g} make no schedule; give at least one step and "
            "a positive shift."
        )
    ends = shifted(np.array([1.0, 1.0 / TRAIN_LEVELS]), shift)
    levels = shifted(np.linspace(ends[0], ends[1], steps), shift)
    return torch.from_numpy(np.append(levels, 0.0)).float()


def training_levels(shift: float = 5.0) -> Tensor:
    """The 1000 levels that training draws from: float32, falling."""
    return torch.from_numpy(shifted(np.linspace(1, 1 / TRAIN_LEVELS, TRAIN_LEVELS), shift)).float()


def schedule_row(levels: Tensor, start: Tensor, step: int) -> Tensor:
    """Noise level of every cell before ``step`` (or after the last): ``start`` [...] -> [...]."""
    return levels[start.clamp(min=step)]


def noised_to(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """(1 - level) clean + level noise, with ``level`` [B,T,h,w] for latents [B,C,T,h,w]."""
    share = level[:, None]
    return (1 - share) * clean + share * noise


def sample_asynchronous(
    denoise: Denoise,
    hint: Tensor,
    noise: Tensor,
    start: Tensor,
    levels: Tensor,
    *,
    reference: bool = False,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Latents of a chunk from its rendered hint.

    Args:
        hint: [B,C,T,h,w]; cells that never take part come out bit for bit as they are here.
        noise: of the same shape.
        start: int64 [B,T,h,w] in 0 .. steps (``conditioning.noise_field.start_steps``), best
            constant on 2x2 patches: a patch has one level for the network.
        levels: [steps + 1] from :func:`noise_levels`.
        reference: the published arithmetic: levels are looked up in bfloat16, which distorts the
            first steps' lengths by up to two thirds.
        on_step: called with finished and all steps.

    Returns:
        [B,C,T,h,w] float32.

    Raises:
        InputError: a start outside the schedule, or shapes that disagree.
    """
    steps = len(levels) - 1
    wanted = (hint.shape[0], *hint.shape[2:])
    outside = start.numel() == 0 or int(start.min()) < 0 or int(start.max()) > steps
    if start.shape != wanted or noise.shape != hint.shape or outside:
        raise InputError(
            f"starts of shape {tuple(start.shape)} do not fit a hint of shape {tuple(hint.shape)} "
            f"and noise of shape {tuple(noise.shape)} over {steps} steps; give one start from 0 to "
            f"{steps} for each cell"
        )
    levels = levels.to(hint.device)
    looked_up = levels.bfloat16().float() if reference else levels
    tokens, active = patch_steps(start), (start < steps)[:, None]
    z = torch.where(active, noised_to(hint, noise, schedule_row(levels, start, 0)), hint).float()
    for step in range(steps):
        now, then = (schedule_row(looked_up, start, m)[:, None] for m in (step, step + 1))
        velocity = denoise(z, TRAIN_LEVELS * schedule_row(levels, tokens, step))
        z = torch.where(active & (now != then), z + (then - now) * velocity.float(), z)
        if on_step is not None:
            on_step(step + 1, steps)
    return z
