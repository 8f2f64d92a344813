"""What conditions the Helios denoiser: noise level and prompt."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.linear import Linear, with_gelu
from flythrough.models.precision import without_autocast

_MAX_PERIOD = 10000.0


def sinusoids(timestep: Tensor, channels: int) -> Tensor:
    """[B] levels in 0..1000 to [B,channels] float32: cosines, then sines."""
    half = channels // 2
    steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
    # The order of these operations matters: level 999 magnifies the rounding of a frequency.
    angles = timestep.float()[:, None] * torch.exp(-math.log(_MAX_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedder(nn.Module):
    """Two linear layers with SiLU between, kept in float32."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = Linear(channels, dim)
        self.linear_2 = Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.linear_2(
            functional.silu(self.linear_1(x.to(self.linear_1.weight.dtype)))
        )
        return embedded


class TextEmbedder(nn.Module):
    """Prompt features to model width: two linear layers with tanh-GELU between."""

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.linear_1 = Linear(text_dim, dim)
        self.linear_2 = Linear(dim, dim)

    def forward(self, text: Tensor) -> Tensor:
        hidden = with_gelu(self.linear_1, text.to(self.linear_1.weight.dtype))
        embedded: Tensor = self.linear_2(hidden)
        return embedded


class ConditionEmbedder(nn.Module):
    """Time to embedding and modulation row, prompt to tokens."""

    def __init__(self, dim: int, freq_dim: int, text_dim: int) -> None:
        super().__init__()
        self.freq_dim = freq_dim
        self.time_embedder = TimeEmbedder(freq_dim, dim)
        self.time_proj = Linear(dim, 6 * dim)
        self.text_embedder = TextEmbedder(text_dim, dim)

    def rows(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding [B,D] and modulation row [B,6,D] of ``timestep`` [B], outside autocast."""
        with without_autocast(timestep.device):
            embedding = self.time_embedder(sinusoids(timestep, self.freq_dim))
            embedding = embedding.to(self.time_proj.weight.dtype)
            return embedding, self.time_proj(functional.silu(embedding)).unflatten(-1, (6, -1))
