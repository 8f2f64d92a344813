"""Noise of the pyramid: one draw at every size, and the block noise between stages."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from flythrough.sampling.dmd_schedule import PyramidConfig, stage_tables

_BLOCK = 4
_JITTER = 1e-8
_RECORDED_PIVOT = math.sqrt(1.5 * 2**-23)


def halved(latents: Tensor, gain: float = 1.0) -> Tensor:
    """[B,C,T,h,w] at half height and width, times ``gain``.

    Bilinear halving between pixel centres is the mean of each 2x2 block.
    """
    return avg_pool3d(latents, (1, 2, 2)) * gain


def doubled(latents: Tensor) -> Tensor:
    """[B,C,T,h,w] at twice the height and width by repetition."""
    return latents.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def noise_pyramid(noise: Tensor, stages: int) -> list[Tensor]:
    """Unit normal noise [B,C,T,h,w] at every stage's size, coarse to fine, still unit normal.

    The mean of four independent values has half their deviation, hence a gain of 2 per halving.
    """
    return _pyramid(noise, stages, gain=2.0)


def clean_pyramid(latents: Tensor, stages: int) -> list[Tensor]:
    """Clean latents [B,C,T,h,w] at every stage's size, coarse to fine."""
    return _pyramid(latents, stages, gain=1.0)


def block_noise(
    shape: tuple[int, ...] | torch.Size, source: torch.Generator, gamma: float
) -> Tensor:
    """Noise [B,C,T,h,w] whose 2x2 blocks have covariance (1+gamma) I - gamma 11^T.

    Nearest-neighbour enlargement makes four equal values of one; this adds the detail that is
    missing, so that the sum has independent pixels. For gamma = 1/3 it is four normal draws less
    their mean, times sqrt(4/3), with mean zero in every block. Float32 on the generator's device.
    """
    values = _block_draws(shape, source)
    mean = values.mean(dim=1, keepdim=True)
    common = math.sqrt(max(0.0, 1 - 3 * gamma))
    return _from_blocks(math.sqrt(1 + gamma) * (values - mean) + common * mean, shape)


def reference_block_noise(
    shape: tuple[int, ...] | torch.Size, source: torch.Generator, gamma: float
) -> Tensor:
    """:func:`block_noise` through the triangular factor of the published code.

    Same distribution and same draws, other values: it differs by a rotation within each block. For
    gamma = 1/3 the covariance is singular, and the published code factorises it in single
    precision, where the jitter it adds is lost: the last pivot is what rounding leaves, and on some
    processors the factorisation fails. Here that pivot is fixed to the value of the recorded runs.
    """
    values = _block_draws(shape, source)
    return _from_blocks(values @ _triangular_factor(gamma).to(values.device).T, shape)


def stage_entry(config: PyramidConfig, stage: int) -> tuple[float, float]:
    """(alpha, beta) with which ``stage`` > 0 begins: alpha * enlarged + beta * block noise.

    They are chosen so that the noise part of the sum is white and has the corrected start level:
    alpha times the noise left by the stage before, squared, plus beta squared is start squared.
    """
    signal = 1 - stage_tables(config)[stage].original_start
    alpha = 1 / (math.sqrt(1 + 1 / config.gamma) * (1 - signal) + signal)
    return alpha, alpha * (1 - signal) / math.sqrt(config.gamma)


def enter_stage(coarse: Tensor, block: Tensor, config: PyramidConfig, stage: int) -> Tensor:
    """The start of ``stage`` from the end of the stage before, [B,C,T,h,w] -> [B,C,T,2h,2w]."""
    alpha, beta = stage_entry(config, stage)
    return alpha * doubled(coarse) + beta * block.to(coarse)


def _pyramid(latents: Tensor, stages: int, gain: float) -> list[Tensor]:
    levels = [latents]
    for _ in range(stages - 1):
        levels.append(halved(levels[-1], gain))
    return levels[::-1]


def _triangular_factor(gamma: float) -> Tensor:
    eye = torch.eye(_BLOCK, dtype=torch.float64)
    covariance = eye * (1 + gamma + _JITTER) - gamma
    factor = torch.linalg.cholesky(covariance)
    if 1 - 3 * gamma < _JITTER:
        factor[-1, -1] = _RECORDED_PIVOT
    return factor.float()


def _block_draws(shape: tuple[int, ...] | torch.Size, source: torch.Generator) -> Tensor:
    batch, channels, frames, height, width = shape
    count = batch * channels * frames * (height // 2) * (width // 2)
    return torch.randn(count, _BLOCK, generator=source, device=source.device)


def _from_blocks(values: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """[blocks, 4] row-major within a block -> [B,C,T,h,w]."""
    batch, channels, frames, height, width = shape
    blocks = values.view(batch, channels, frames, height // 2, width // 2, 2, 2)
    return blocks.transpose(4, 5).reshape(batch, channels, frames, height, width)
