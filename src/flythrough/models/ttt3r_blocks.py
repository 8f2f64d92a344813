"""Transformer blocks of the streaming geometry network, and how its gate reads attention.

Rotary positions are those of ``pi3x_blocks.rotary_2d`` (base 100, rows then columns); angles are
computed from the position itself, so that the pose token's (-1, -1) needs no table.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.pi3x_blocks import NORM_EPS, Attention, Mlp, Rotary


def mean_logits(queries: Tensor, keys: Tensor) -> Tensor:
    """Mean over heads and keys of the scaled attention logits, [B, Tq], without the logits.

    The mean over keys of q.k is q times the mean key, so no [Tq, Tk] matrix is needed.

    Args:
        queries: [B, heads, Tq, d] and keys [B, heads, Tk, d], after rotation.
    """
    centre = keys.float().mean(dim=2, keepdim=True)
    return (queries.float() * centre).sum(-1).mean(1) * queries.shape[-1] ** -0.5


class CrossAttention(nn.Module):
    """Attention of one set of tokens to another; both may be rotated."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq, self.projk = nn.Linear(width, width), nn.Linear(width, width)
        self.projv, self.proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, x: Tensor, y: Tensor, turn_x: Rotary | None, turn_y: Rotary | None, rate: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Update [B,Tx,W] for ``x``, and with ``rate`` the mean logit of each of its tokens."""
        q, k, v = self._split(self.projq(x)), self._split(self.projk(y)), self._split(self.projv(y))
        q = q if turn_x is None else turn_x(q)
        k = k if turn_y is None else turn_y(k)
        agreement = mean_logits(q, k) if rate else None
        merged = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(merged), agreement

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class EncoderBlock(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, ratio)

    def forward(self, x: Tensor, turn: Rotary) -> Tensor:
        x = x + self.attn(self.norm1(x), turn)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the (normalised) other stream, and MLP."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, ratio)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        turn_x: Rotary | None = None,
        turn_y: Rotary | None = None,
        *,
        rate: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """New ``x`` and, with ``rate``, how much its tokens agree with those of ``y`` [B,Tx]."""
        x = x + self.attn(self.norm1(x), turn_x)
        update, agreement = self.cross_attn(self.norm2(x), self.norm_y(y), turn_x, turn_y, rate)
        x = x + update
        return x + self.mlp(self.norm3(x)), agreement


class ConditionedNorm(nn.Module):
    """Layer norm whose shift and scale come from the pose token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        shift, scale = self.mlp(pose).unsqueeze(1).chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class ConditionedBlock(nn.Module):
    """Encoder block whose norms listen to the pose token [B,W]."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = ConditionedNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = ConditionedNorm(width)
        self.mlp = Mlp(width, ratio)

    def forward(self, x: Tensor, pose: Tensor, turn: Rotary) -> Tensor:
        x = x + self.attn(self.norm1(x, pose), turn)
        return x + self.mlp(self.norm2(x, pose))


def grid_positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """(row, column) of patches, counted from 0: [rows * columns, 2]."""
    return torch.cartesian_prod(
        torch.arange(rows, device=device), torch.arange(columns, device=device)
    )


def frame_positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """The pose token at (-1, -1), then the patches."""
    patches = grid_positions(rows, columns, device)
    return torch.cat([patches.new_full((1, 2), -1), patches])


def state_positions(count: int, columns: int, device: torch.device) -> Tensor:
    """The state's ``count`` tokens row by row on a grid of ``columns``."""
    index = torch.arange(count, device=device)
    return torch.stack([index // columns, index % columns], dim=-1)
