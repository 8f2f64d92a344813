"""Coarse-to-fine few-step sampling of one chunk (Helios, arXiv 2603.04379).

Every step estimates the end of the stage's segment and mixes the stage's own start point back in at
the next noise level; no fresh noise is drawn within a stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.sampling.dmd_schedule import PyramidConfig, pyramid_schedules
from flythrough.sampling.noise import enter_stage, noise_pyramid

SPATIAL_FACTOR = 8
"""Pixels per latent pixel."""

Denoise = Callable[[Tensor, Tensor, int], Tensor]
"""(x [B,C,T,h,w] float32, timestep [B] float32, stage) -> velocity of the stage's segment."""

BlockNoise = Callable[[int, torch.Size], Tensor]
"""(stage, shape) -> block noise of that shape."""

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)."""


def sample_pyramid(
    denoise: Denoise,
    noise: Tensor,
    block_noise: BlockNoise,
    config: PyramidConfig,
    *,
    steps: Sequence[int] = (2, 2, 2),
    amplify: bool = False,
    reference: bool = False,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents [B,C,T,h,w] float32 from full-size unit normal ``noise`` of that shape.

    Args:
        denoise: the network with its conditioning; called sum(steps) times, twice that if
            ``amplify``.
        block_noise: the noise that enters with every enlargement, for stages 1, 2, ...
        steps: steps per stage, coarse to fine.
        amplify: twice the steps in every stage (first chunk of the distilled model).
        reference: published inference instead of the trained rule: see
            :func:`~flythrough.sampling.dmd_schedule.pyramid_schedules`.
        on_step: called after every step.

    Raises:
        InputError: a size that cannot be halved and patched in every stage, or wrong steps.
    """
    if noise.ndim != 5:
        raise InputError(
            f"start noise of shape {tuple(noise.shape)} is not [B, C, T, h, w]; add the missing "
            "axes"
        )
    frames, height, width = noise.shape[2:]
    check_latent_size(height, width, config.stages)
    schedules = pyramid_schedules(
        config, (frames, height, width), steps, amplify=amplify, reference=reference
    )
    total, done = sum(len(schedule) for schedule in schedules), 0
    x = noise_pyramid(noise.float(), config.stages)[0]
    for stage, schedule in enumerate(schedules):
        if stage > 0:
            shape = torch.Size((*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4]))
            x = enter_stage(x, block_noise(stage, shape), config, stage)
        start = x
        levels = zip(schedule.timesteps, schedule.sigmas, schedule.next_sigmas, strict=True)
        for timestep, sigma, following in levels:
            t = torch.full((len(x),), timestep, device=x.device)
            x = dmd_step(x, denoise(x, t, stage), start, sigma, following)
            done += 1
            if on_step is not None:
                on_step(done, total)
    return x


def dmd_step(x: Tensor, velocity: Tensor, start: Tensor, sigma: float, following: float) -> Tensor:
    """From local level ``sigma`` to ``following``: estimate the end, mix the start back in."""
    end = x - sigma * velocity.to(x)
    return (1 - following) * end + following * start


def check_latent_size(height: int, width: int, stages: int) -> None:
    """Every stage must hold whole 2x2 patches.

    Raises:
        InputError: a side that is not a multiple of 2**stages latent pixels.
    """
    unit = 2**stages
    for name, side in (("height", height), ("width", width)):
        if side <= 0 or side % unit:
            raise InputError(
                f"{name} {side * SPATIAL_FACTOR} is not a multiple of {unit * SPATIAL_FACTOR}, "
                f"which {stages} pyramid stages need; choose "
                f"{max(1, round(side / unit)) * unit * SPATIAL_FACTOR}"
            )
