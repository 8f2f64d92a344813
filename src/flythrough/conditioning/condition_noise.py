"""The little noise that conditions carry, so that the network does not copy them blindly."""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.errors import InputError
from flythrough.models.uploads import uploaded

SigmaRange = tuple[float, float]

CONDITION_SIGMAS: SigmaRange = (0.111, 0.135)


def noised(latents: Tensor, sigma: Tensor | float, noise: Tensor) -> Tensor:
    """``sigma * noise + (1 - sigma) * latents``.

    Args:
        latents, noise: [B,C,n,h,w].
        sigma: one level for all, per latent frame [n] or [B,n], or [B,1,n,1,1].
    """
    if isinstance(sigma, Tensor) and sigma.ndim in (1, 2):
        sigma = sigma.reshape(*(1,) * (2 - sigma.ndim), *sigma.shape)[:, None, :, None, None]
    return sigma * noise + (1 - sigma) * latents


def with_condition_noise(
    latents: Tensor, source: torch.Generator, limits: SigmaRange = CONDITION_SIGMAS
) -> Tensor:
    """``latents`` [B,C,n,h,w] with noise drawn as :func:`draw_condition_noise` does.

    Training and inference noise their conditions by this one function.
    """
    sigma, noise = draw_condition_noise(latents.shape, source, limits)
    at = latents.device
    return noised(latents, uploaded(sigma, at, sigma.dtype), uploaded(noise, at, noise.dtype))


def draw_condition_noise(
    shape: tuple[int, ...] | torch.Size,
    source: torch.Generator,
    limits: SigmaRange = CONDITION_SIGMAS,
) -> tuple[Tensor, Tensor]:
    """Draw what :func:`noised` takes: one sigma per latent frame, then one normal tensor.

    The order and the shapes are those of the published code: for nine latents one vector of nine
    uniform numbers, then the noise. Drawn on the generator's device.

    Returns:
        (sigma [B,1,n,1,1], noise [B,C,n,h,w]).

    Raises:
        InputError: limits that are not 0 <= low <= high <= 1.
    """
    low, high = limits
    if not 0.0 <= low <= high <= 1.0:
        raise InputError(
            f"condition noise between {low} and {high} is not a range; give 0 <= low <= high <= 1"
        )
    batch, _, frames, _, _ = shape
    level = torch.rand(batch, frames, generator=source, device=source.device)
    noise = torch.randn(tuple(shape), generator=source, device=source.device)
    return (level * (high - low) + low)[:, None, :, None, None], noise
