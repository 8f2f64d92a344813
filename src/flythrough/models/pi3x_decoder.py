"""Transformers of the Pi3X output branches: one per branch over a view, one for metric scale."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.pi3x_blocks import NORM_EPS, Block, Mlp, Rotary
from flythrough.models.pi3x_config import Pi3XConfig


class HeadTransformer(nn.Module):
    """Features [B*N, T, 2D] to branch features [B*N, T, out], each view on its own."""

    def __init__(self, config: Pi3XConfig, out: int) -> None:
        super().__init__()
        width = config.head_width
        self.projects = nn.Linear(2 * config.width, width)
        self.blocks = nn.ModuleList(
            Block(width, config.head_heads, config.mlp_ratio, scale=None)
            for _ in range(config.head_depth)
        )
        self.linear_out = nn.Linear(width, out)

    def forward(self, features: Tensor, rotary: Rotary) -> Tensor:
        x = self.projects(features)
        for block in self.blocks:
            x = block(x, rotary)
        return self.linear_out(x)


class CrossAttention(nn.Module):
    """One query token per sample asks all tokens of all views."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, rotary: Rotary) -> Tensor:
        """The query sits at position (0, 0), where the rotation is the identity."""
        q, k, v = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, tokens in (
                (self.q_proj, x),
                (self.k_proj, context),
                (self.v_proj, context),
            )
        )
        y = functional.scaled_dot_product_attention(q, rotary(k), v)
        return self.proj(y.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Cross-attention and MLP on the query; the context is left as it is."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_y = nn.LayerNorm(width, eps=NORM_EPS)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, ratio)

    def forward(self, x: Tensor, context: Tensor, rotary: Rotary) -> Tensor:
        x = x + self.cross_attn(self.norm2(x), self.norm_y(context), rotary)
        return x + self.mlp(self.norm3(x))


class MetricTransformer(nn.Module):
    """Query [B,1,2D] and all views' features [B, N*T, 2D] to metric features [B,1,metric_width]."""

    def __init__(self, config: Pi3XConfig) -> None:
        super().__init__()
        width = config.metric_width
        self.projects_x = nn.Linear(2 * config.width, width)
        self.projects_y = nn.Linear(2 * config.width, width)
        self.blocks = nn.ModuleList(
            CrossBlock(width, config.metric_heads, config.mlp_ratio)
            for _ in range(config.metric_depth)
        )
        self.linear_out = nn.Linear(width, width)

    def forward(self, query: Tensor, features: Tensor, rotary: Rotary) -> Tensor:
        x, context = self.projects_x(query), self.projects_y(features)
        for block in self.blocks:
            x = block(x, context, rotary)
        return self.linear_out(x)
