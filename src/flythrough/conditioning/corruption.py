"""History drop and corruption for training (Helios 'Easy Anti-Drifting', section 6.4).

Training sees histories as flawed as the ones a long rollout makes, and learns to take them as
context rather than truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.conditioning.history import LATENT_FRAMES


@dataclass(frozen=True)
class CorruptionSettings:
    """Probabilities and ranges. ``drop_text``: no history at all (text-started); ``drop_old``: the
    oldest windows are missing; ``clean``: no noise; ``sigma``: largest noise level;
    ``saturation_clean`` and ``saturation``: windows whose contrast is left alone, and its range."""

    drop_text: float = 0.1
    drop_old: float = 0.3
    clean: float = 0.1
    sigma: float = 1 / 3
    saturation_clean: float = 0.7
    saturation: tuple[float, float] = (0.7, 1.3)


def drop_history(
    past: Tensor, prefix: Tensor, source: torch.Generator, settings: CorruptionSettings
) -> tuple[Tensor, Tensor]:
    """Zero all history of some samples and the oldest windows of others.

    Args:
        past: [B,C,n,h,w]; prefix: [B,C,1,h,w].
    """
    batch, frames = len(past), past.shape[2]
    keep = (_uniform(source, past, batch) >= settings.drop_text).to(past)[:, None, None, None, None]
    windows = 1 + (frames - 1) // LATENT_FRAMES
    gone = torch.floor(_uniform(source, past, batch) * windows) * LATENT_FRAMES
    some = _uniform(source, past, batch) < settings.drop_old
    first = torch.where(some, gone, torch.zeros_like(gone))
    old = torch.arange(frames, device=past.device)[None] < first[:, None]
    kept = past * keep * (~old).to(past)[:, None, :, None, None]
    return kept, prefix * keep


def corrupt_history(
    past: Tensor, prefix: Tensor, source: torch.Generator, settings: CorruptionSettings
) -> tuple[Tensor, Tensor]:
    """Noise of an own level for every latent frame, and contrast drift for some samples.

    Latents that are all zero (absent history) stay zero.
    """
    together = torch.cat((prefix, past), dim=2)
    present = (together != 0).any(dim=1, keepdim=True).any(dim=3, keepdim=True)
    present = present.any(dim=4, keepdim=True).to(together)
    low, high = settings.saturation
    factor = low + (high - low) * _uniform(source, past, len(past))
    factor = torch.where(
        _uniform(source, past, len(past)) < settings.saturation_clean,
        torch.ones_like(factor),
        factor,
    )[:, None, None, None, None]
    mean = past.mean(dim=1, keepdim=True)
    drifted = torch.cat((prefix, (past - mean) * factor + mean), dim=2)
    level = settings.sigma * _uniform(source, past, len(past), together.shape[2])
    clean = _uniform(source, past, len(past), 1) < settings.clean
    level = torch.where(clean, torch.zeros_like(level), level)[:, None, :, None, None]
    noise = torch.randn(together.shape, generator=source, device=source.device).to(past)
    mixed = (level * noise + (1 - level) * drifted) * present
    return mixed[:, :, 1:], mixed[:, :, :1]


def _uniform(source: torch.Generator, like: Tensor, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=source, device=source.device).to(like)
