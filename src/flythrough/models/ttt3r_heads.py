"""Heads of the streaming geometry network: dense maps from four depths of features, and the pose.

The dense head is that of vision transformers for dense prediction (Ranftl et al. 2021): four taps
become a pyramid that is fused from its coarsest level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.pi3x_blocks import Mlp
from flythrough.models.ttt3r_config import TTT3RConfig

_LEAST = 1e-8


class ResidualConv(nn.Module):
    """Two 3x3 convolutions around which the input goes on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(functional.relu(x))))


class Fusion(nn.Module):
    """Joins a level to what comes from the coarser one and doubles the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resConfUnit1 = ResidualConv(width)  # unused at the coarsest level, yet stored
        self.resConfUnit2 = ResidualConv(width)
        self.out_conv = nn.Conv2d(width, width, 1)

    def forward(self, coarse: Tensor | None, level: Tensor) -> Tensor:
        joined = level if coarse is None else coarse + self.resConfUnit1(level)
        return self.out_conv(_doubled(self.resConfUnit2(joined)))


class Doubled(nn.Module):
    """Twice the size, bilinear."""

    def forward(self, x: Tensor) -> Tensor:
        return _doubled(x)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class DenseHead(nn.Module):
    """Maps [B,channels,H,W] from taps [B,N,width] of a picture of H/16 x W/16 patches."""

    def __init__(self, config: TTT3RConfig, channels: int) -> None:
        super().__init__()
        a, b, c, d = config.tap_widths
        inner, fused, last = config.width, config.fusion_width, config.final_width
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(config.encoder_width, a, 1), nn.ConvTranspose2d(a, a, 4, stride=4)
                ),
                nn.Sequential(nn.Conv2d(inner, b, 1), nn.ConvTranspose2d(b, b, 2, stride=2)),
                nn.Sequential(nn.Conv2d(inner, c, 1)),
                nn.Sequential(nn.Conv2d(inner, d, 1), nn.Conv2d(d, d, 3, stride=2, padding=1)),
            ]
        )
        self.scratch = nn.Module()
        levels = [nn.Conv2d(n, fused, 3, padding=1, bias=False) for n in config.tap_widths]
        for number, level in enumerate(levels, start=1):
            self.scratch.add_module(f"layer{number}_rn", level)
        # The published files name these tensors twice.
        self.scratch.add_module("layer_rn", nn.ModuleList(levels))
        for number in range(1, 5):
            self.scratch.add_module(f"refinenet{number}", Fusion(fused))
        self.head = nn.Sequential(
            nn.Conv2d(fused, last, 3, padding=1),
            Doubled(),
            nn.Conv2d(last, last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last, channels, 1),
        )

    def forward(self, taps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """``taps`` in the order of depth, without the pose token; ``grid`` = (rows, columns)."""
        scratch = self.scratch
        levels = []
        for number, (tap, adapt) in enumerate(zip(taps, self.act_postprocess, strict=True)):
            plane = adapt(tap.float().transpose(1, 2).unflatten(2, grid))
            levels.append(scratch.get_submodule(f"layer{number + 1}_rn")(plane))
        out: Tensor | None = None
        for number in (4, 3, 2, 1):
            level = levels[number - 1]
            if out is not None:
                # An odd number of patches was rounded up on the way down.
                out = out[..., : level.shape[-2], : level.shape[-1]]
            out = scratch.get_submodule(f"refinenet{number}")(out, level)
        assert out is not None
        return self.head(out)


class PoseHead(nn.Module):
    """The pose token to a raw translation and quaternion [B,7]."""

    def __init__(self, config: TTT3RConfig) -> None:
        super().__init__()
        self.mlp = Mlp(config.width, config.mlp_ratio)
        self.mlp.fc2 = nn.Linear(config.mlp_ratio * config.width, 7)

    def forward(self, token: Tensor) -> Tensor:
        return self.mlp(token.float())


def stretched(vectors: Tensor) -> Tensor:
    """Raw vectors [...,3] with their length l replaced by exp(l) - 1."""
    length = vectors.norm(dim=-1, keepdim=True).clamp_min(_LEAST)
    return vectors / length * torch.expm1(length)


def decoded_pose(raw: Tensor) -> Tensor:
    """Raw (translation, quaternion w x y z) [B,7] as camera-to-world [B,4,4]."""
    quaternion = functional.normalize(raw[:, 3:], dim=-1)
    quaternion = torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)
    w, x, y, z = quaternion.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    top = torch.cat([torch.stack(rows, dim=1), stretched(raw[:, :3])[..., None]], dim=-1)
    last = raw.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(raw), 1, 4)
    return torch.cat([top, last], dim=1)


def decoded_points(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps [B,4,H,W] as points [B,H,W,3] and confidence [B,H,W], at least 1."""
    points = stretched(raw[:, :3].permute(0, 2, 3, 1))
    return points, 1 + raw[:, 3].exp()
