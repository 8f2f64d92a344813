"""Coarse-to-fine sampling of one chunk (Helios, arXiv 2603.04379).

A solver moves the latent through each stage; between stages it is enlarged and block noise is
added. No fresh noise is drawn within a stage. One stage alone is plain sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import enter_stage, noise_pyramid
from flythrough.sampling.solvers import DMDSolver, Solver, dmd_step

SPATIAL_FACTOR = 8
"""Pixels per latent pixel."""

Denoise = Callable[[Tensor, Tensor, int], Tensor]
"""(x [B,C,T,h,w] float32, timestep [B] float32, stage) -> velocity of the stage's segment."""

BlockNoise = Callable[[int, torch.Size], Tensor]
"""(stage, shape) -> block noise of that shape."""

OnStep = Callable[[int, int], None]
"""(steps done, steps in all)."""

AfterStep = Callable[[int, Tensor, Tensor], Tensor]
"""(step within the stage, timestep [B], latents [B,C,T,h,w] of the stage's size) -> latents."""


def sample_pyramid(
    denoise: Denoise,
    noise: Tensor,
    block_noise: BlockNoise,
    config: PyramidConfig,
    *,
    steps: Sequence[int] = (2, 2, 2),
    amplify: bool = False,
    reference: bool = False,
    solver: Solver | None = None,
    on_step: OnStep | None = None,
    after_step: AfterStep | None = None,
) -> Tensor:
    """Latents [B,C,T,h,w] float32 from full-size unit normal ``noise`` of that shape.

    Args:
        denoise: the network with its conditioning; called once per step.
        block_noise: the noise that enters with every enlargement, for stages 1, 2, ...
        steps: steps per stage, coarse to fine, of the distilled model's solver.
        amplify: twice the steps in every stage (first chunk of the distilled model).
        reference: published inference instead of the trained rule: see
            :func:`~flythrough.sampling.dmd_schedule.pyramid_schedules`.
        solver: takes the place of the distilled model's; ``steps``, ``amplify`` and ``reference``
            are then not used.
        on_step: called after every step.
        after_step: given the latents after every step, it says those to go on with.

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
    if solver is None:
        size = (frames, height, width)
        solver = DMDSolver(config, size, steps, amplify=amplify, reference=reference)
    done = 0
    x = noise_pyramid(noise.float(), config.stages)[0]
    for stage in range(config.stages):
        if stage > 0:
            shape = torch.Size((*x.shape[:3], 2 * x.shape[3], 2 * x.shape[4]))
            x = enter_stage(x, block_noise(stage, shape), config, stage)
        for index, timestep in enumerate(solver.begin(stage, x)):
            t = torch.full((len(x),), timestep, device=x.device)
            x = solver.step(index, x, denoise(x, t, stage))
            if after_step is not None:
                x = after_step(index, t, x)
            done += 1
            if on_step is not None:
                on_step(done, solver.total)
    return x


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


__all__ = ["check_latent_size", "dmd_step", "sample_pyramid"]
