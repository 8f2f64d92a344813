"""A few-step roll-out through the pyramid with gradients where training needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from flythrough.sampling.dmd_schedule import PyramidConfig, pyramid_schedules
from flythrough.sampling.noise import enter_stage, noise_pyramid
from flythrough.sampling.solvers import Size, dmd_step

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x, timestep [B]) -> velocity, both float32."""

BlockNoise = Callable[[int, torch.Size], Tensor]


def roll_out(
    denoise: Denoise,
    noise: Tensor,
    block_noise: BlockNoise,
    config: PyramidConfig,
    steps: int,
    exits: Sequence[int],
    *,
    gradients: bool,
) -> Tensor:
    """Full-size latents from unit normal ``noise`` [B,16,9,h,w], left early in every stage.

    Stage k takes ``exits[k]`` ordinary steps of ``steps`` without gradients. The step after them
    carries gradients, and the stage's end that it points to is what the next stage starts from. So
    gradients reach an earlier stage only while later ones are left at their first step (Helios,
    section on hierarchical distillation).
    """
    size: Size = (noise.shape[2], noise.shape[3], noise.shape[4])
    schedules = pyramid_schedules(config, size, (steps,) * config.stages)
    x = noise_pyramid(noise, config.stages)[0]
    for stage, (schedule, leave) in enumerate(zip(schedules, exits, strict=True)):
        if stage > 0:
            shape = torch.Size((*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4]))
            x = enter_stage(x, block_noise(stage, shape), config, stage)
        start = x
        for index in range(leave + 1):
            last = index == leave
            with nullcontext() if last and gradients else torch.no_grad():
                timestep = torch.full((len(x),), schedule.timesteps[index], device=x.device)
                moved = denoise(x, timestep)
                sigma = schedule.sigmas[index]
                if last:
                    x = (x.double() - sigma * moved.double()).float()
                else:
                    x = dmd_step(x, moved, start, sigma, schedule.next_sigmas[index])
    return x
