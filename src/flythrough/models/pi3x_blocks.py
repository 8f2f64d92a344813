"""Attention, residual blocks and 2-D rotary positions that the Pi3X parts share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6  # of the residual blocks; query and key norms use PyTorch's 1e-5
_ROPE_BASE = 100.0


class Rotary:
    """Cosine and sine tables [T, head_dim] for the tokens of one attention call."""

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate queries or keys [B, heads, T, head_dim]."""
        turned = torch.cat([_quarter_turn(half) for half in x.chunk(2, dim=-1)], dim=-1)
        return (x * self.cos + turned * self.sin).to(x.dtype)

    def repeated(self, times: int) -> Rotary:
        """The tables for ``times`` views in a row: all views have the same positions."""
        return Rotary(self.cos.repeat(times, 1), self.sin.repeat(times, 1))


def _quarter_turn(half: Tensor) -> Tensor:
    a, b = half.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def rotary_2d(head_dim: int, positions: Tensor) -> Rotary:
    """RoPE tables for integer ``positions`` [T, 2] (row, column), base 100.

    The first half of a head turns with the row and the second with the column; within a half,
    frequency f_j = 100^(-2j/d), d = head_dim / 2, pairs entry j with entry j + d/2.
    """
    d = head_dim // 2
    steps = torch.arange(d // 2, device=positions.device, dtype=torch.float32)
    frequencies = _ROPE_BASE ** (-2.0 * steps / d)
    angles = positions.float()[:, :, None] * frequencies  # [T, 2, d/2]
    angles = torch.cat([angles, angles], dim=-1).flatten(1)
    return Rotary(angles.cos(), angles.sin())


def token_positions(rows: int, columns: int, registers: int, device: torch.device) -> Tensor:
    """(row, column) of a view's tokens: registers at (0, 0), then patches counted from (1, 1)."""
    r = torch.arange(1, rows + 1, device=device)
    c = torch.arange(1, columns + 1, device=device)
    patches = torch.cartesian_prod(r, c)
    return torch.cat([patches.new_zeros(registers, 2), patches])


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Self-attention with a fused projection, optional query/key norms and optional rotation."""

    def __init__(self, width: int, heads: int, *, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm: nn.Module = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(width // heads) if qk_norm else nn.Identity()

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed queries and keys, and values, each [B, heads, T, head_dim]."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v

    def merged(self, y: Tensor) -> Tensor:
        """Heads [B, heads, T, head_dim] back to tokens [B, T, width], projected."""
        return self.proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        q, k, v = self.heads_of(x)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        return self.merged(functional.scaled_dot_product_attention(q, k, v))


class Block(nn.Module):
    """Pre-norm transformer block; ``scale`` is the layer scales' start, None for no layer scale."""

    def __init__(
        self, width: int, heads: int, ratio: int, *, scale: float | None, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, qk_norm=qk_norm)
        self.ls1: nn.Module = nn.Identity() if scale is None else LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, ratio)
        self.ls2: nn.Module = nn.Identity() if scale is None else LayerScale(width, scale)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotary))
        return x + self.ls2(self.mlp(self.norm2(x)))
