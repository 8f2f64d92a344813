"""Training pairs of the pyramid: a point on a stage's segment and the velocity along it.

Helios' unified objective, which Warp-as-History trains its adapter with as well: the same noise at
every size, a segment per stage from a noisier, coarser start to a cleaner end, and a uniformly
drawn point between the two (arXiv 2603.04379, stage 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.sampling.dmd_schedule import (
    PyramidConfig,
    shift_factor,
    shift_mu,
    stage_tables,
    token_count,
)
from flythrough.sampling.noise import clean_pyramid, doubled, noise_pyramid


@dataclass(frozen=True, eq=False)
class FlowItem:
    """One stage's training pair.

    Attributes:
        x: network input [B,C,T,h,w] at the stage's size.
        timestep: [B] float32, what the network is told.
        target: [B,C,T,h,w], the velocity start - end it should give.
        sigma: [B] float32, the local noise level.
    """

    x: Tensor
    timestep: Tensor
    target: Tensor
    sigma: Tensor


def flow_items(
    clean: Tensor,
    noise: Tensor,
    stage: int,
    u: Tensor,
    config: PyramidConfig,
    *,
    shift: bool = False,
) -> FlowItem:
    """Pairs of ``stage`` from full-size clean latents and unit normal noise [B,C,T,h,w].

    Args:
        u: [B] in [0,1), the place on the stage's training grid: 0 is the noisiest of 1000 points.
        shift: move the noise level by the shift of the stage's own size, as the sampler does.

    Raises:
        InputError: shapes that differ or a stage that does not exist.
    """
    grid_t, grid_sigma = _grid(config, _known(stage, config), u.device)
    index = (u * len(grid_t)).long().clamp(0, len(grid_t) - 1)
    sigma, timestep = grid_sigma[index], grid_t[index]
    if shift:
        factor = shift_factor(config, shift_mu(config, _stage_tokens(clean, config, stage)))
        return flow_items_at(clean, noise, stage, factor / (factor + 1 / sigma - 1), config)
    return _item(clean, noise, stage, sigma, timestep, config)


def flow_items_at(
    clean: Tensor, noise: Tensor, stage: int, sigma: Tensor, config: PyramidConfig
) -> FlowItem:
    """Pairs at given local noise levels ``sigma`` [B], with the timesteps the sampler would use.

    For training on exactly the levels that a schedule visits.
    """
    grid_t, _ = _grid(config, _known(stage, config), sigma.device)
    return _item(clean, noise, stage, sigma, grid_t[-1] + sigma * (grid_t[0] - grid_t[-1]), config)


def segment(
    clean: Tensor, noise: Tensor, stage: int, config: PyramidConfig
) -> tuple[Tensor, Tensor]:
    """(start, end) of the stage's segment, at the stage's size."""
    if clean.shape != noise.shape:
        raise InputError(
            f"clean latents {tuple(clean.shape)} and noise {tuple(noise.shape)} differ in shape; "
            "draw the noise at the latents' full size"
        )
    table = stage_tables(config)[_known(stage, config)]
    cleans, noises = clean_pyramid(clean, config.stages), noise_pyramid(noise, config.stages)
    start = noises[stage]
    if stage > 0:
        start = table.start * start + (1 - table.start) * doubled(cleans[stage - 1])
    end = cleans[stage]
    if stage < config.stages - 1:
        end = table.end * noises[stage] + (1 - table.end) * end
    return start, end


def _item(
    clean: Tensor,
    noise: Tensor,
    stage: int,
    sigma: Tensor,
    timestep: Tensor,
    config: PyramidConfig,
) -> FlowItem:
    start, end = segment(clean, noise, stage, config)
    level = sigma.to(start)[:, None, None, None, None]
    return FlowItem(level * start + (1 - level) * end, timestep, start - end, sigma)


@lru_cache(maxsize=32)
def _grid(config: PyramidConfig, stage: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(timesteps, sigmas) of the stage's training grid, float32, on ``device``."""
    table = stage_tables(config)[stage]
    with torch.inference_mode(mode=False):
        return (
            torch.tensor(table.timesteps, dtype=torch.float32, device=device),
            torch.tensor(table.sigmas, dtype=torch.float32, device=device),
        )


def _stage_tokens(clean: Tensor, config: PyramidConfig, stage: int) -> int:
    frames, height, width = clean.shape[2:]
    shrink = config.stages - 1 - stage
    return token_count(frames, height >> shrink, width >> shrink)


def _known(stage: int, config: PyramidConfig) -> int:
    if not 0 <= stage < config.stages:
        raise InputError(
            f"stage {stage} does not exist; this model has stages 0 to {config.stages - 1}"
        )
    return stage
