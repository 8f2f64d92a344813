"""The image and depth encoders of Pi3X: DINOv2 vision transformers with register tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.pi3x_blocks import NORM_EPS, Block
from flythrough.models.pi3x_config import PATCH, Pi3XConfig


class PatchEmbed(nn.Module):
    """[B,C,H,W] to patch tokens [B, (H/14)(W/14), width], row-major."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionEncoder(nn.Module):
    """Pictures [B,C,H,W], sides multiples of 14, to normed patch tokens [B, P, width].

    Class and register tokens take part in attention and are dropped at the end; registers have no
    position.
    """

    def __init__(self, config: Pi3XConfig, channels: int, depth: int) -> None:
        super().__init__()
        width = config.width
        self.patch_embed = PatchEmbed(channels, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.encoder_registers, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.grid**2, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.mlp_ratio, scale=1.0) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self._grid = config.grid
        self._start()

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        patches = self.patch_embed(x)
        first, table = self.positions(rows, columns)
        count = x.shape[0]
        tokens = [
            (self.cls_token + first).expand(count, -1, -1),
            self.register_tokens.expand(count, -1, -1),
            patches + table.to(patches.dtype),
        ]
        hidden = torch.cat(tokens, dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        return self.norm(hidden)[:, 1 + self.register_tokens.shape[1] :]

    def positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Position of the class token [1,1,D] and of a rows x columns grid of patches [1,P,D]."""
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if rows == columns == self._grid:
            return first, table
        grid = table.float().unflatten(1, (self._grid, self._grid)).permute(0, 3, 1, 2)
        resized = functional.interpolate(
            grid, size=(rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return first, resized.flatten(2).transpose(1, 2).to(table.dtype)

    def _start(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.register_tokens, std=1e-6)
