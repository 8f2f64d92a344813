"""Stage 3b's scores: noise levels at which made latents are judged, and the gradient from them.

Distribution matching (DMD, Yin et al. 2024) moves what the generator makes along the difference
between what a network trained on real videos and one trained on the generator's own videos take the
clean latents to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from flythrough.sampling.dmd_schedule import PyramidConfig, shift_factor, shift_mu, token_count
from flythrough.sampling.solvers import Size

_GRID = 1000


class ScoreGrid:
    """1000 noise levels from 1 to 0.001, shifted by the full size, with timesteps 1000 sigma."""

    def __init__(
        self, config: PyramidConfig, size: Size, limits: tuple[float, float], device: torch.device
    ) -> None:
        self.factor = shift_factor(config, shift_mu(config, token_count(*size)))
        plain = torch.linspace(1.0, 0.001, _GRID, dtype=torch.float64)
        self.sigmas = self._shifted(plain).float().to(device)
        self.timesteps = _GRID * self.sigmas
        self.limits = limits

    def at(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """(timestep, sigma) [B] of draws ``u`` [B] in (0,1]: shifted, limited, rounded to a whole
        timestep; sigma is that of the grid's nearest timestep."""
        whole = (_GRID * self._shifted(u.double())).clamp(*self.limits).round().to(self.sigmas)
        nearest = (self.timesteps[None] - whole[:, None]).abs().argmin(1)
        return whole, self.sigmas[nearest]

    def _shifted(self, sigma: Tensor) -> Tensor:
        return self.factor / (self.factor + 1 / sigma - 1)


def beta_shape(step: int, start: Sequence[float], steps: int) -> tuple[float, float]:
    """(a, b) of the Beta density of the generator's noise levels: from ``start`` along half a
    cosine to (1, 1), which is uniform, after ``steps``."""
    left = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return 1 + (start[0] - 1) * left, 1 + (start[1] - 1) * left


def beta_draw(batch: int, shape: tuple[float, float], seed: int) -> Tensor:
    """[B] float64 draws, never 0."""
    drawn = np.random.default_rng(seed).beta(*shape, size=batch)
    return torch.from_numpy(np.maximum(drawn, 1e-6))


def noised(clean: Tensor, sigma: Tensor, noise: Tensor) -> Tensor:
    """(1 - sigma) clean + sigma noise, ``sigma`` [B]."""
    level = sigma[:, None, None, None, None]
    return (1 - level) * clean + level * noise


def clean_from(x: Tensor, sigma: Tensor, velocity: Tensor) -> Tensor:
    """What a velocity (noise minus clean) takes the clean latents to be: x - sigma v."""
    return x - sigma[:, None, None, None, None] * velocity


def guided(prompted: Tensor, plain: Tensor, guidance: float) -> Tensor:
    """The real score's guidance: prompted + guidance (prompted - plain)."""
    return prompted + guidance * (prompted - plain)


def matching_gradient(made: Tensor, fake: Tensor, real: Tensor) -> Tensor:
    """(fake - real) / mean |made - real| per sample, in float64; undefined values count as 0."""
    made, fake, real = made.detach().double(), fake.double(), real.double()
    scale = (made - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    return torch.nan_to_num((fake - real) / scale, nan=0.0, posinf=0.0, neginf=0.0)


def matching_loss(made: Tensor, gradient: Tensor) -> Tensor:
    """0.5 MSE(made, constant(made - gradient)) in float64: its gradient is along ``gradient``."""
    wanted = (made.double() - gradient).detach()
    return 0.5 * functional.mse_loss(made.double(), wanted)
