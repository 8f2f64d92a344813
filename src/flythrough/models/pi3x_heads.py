"""Pi3X output heads: the convolutional upsampler for maps and the pooled head for camera poses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.models.pi3x_config import PATCH, Pi3XConfig

_POOL_GROUP = 32  # channels per group of the inner norm


def _conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="replicate")


class ResidualConv(nn.Module):
    """Norm, ReLU, convolution, twice, through double width, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 2 * width
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.ReLU(),
            _conv3(width, hidden),
            nn.GroupNorm(hidden // _POOL_GROUP, hidden),
            nn.ReLU(),
            _conv3(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ConvHead(nn.Module):
    """Patch features [M, P, C] to maps [M, n, 14 * rows, 14 * columns], for each n of ``outputs``.

    Three doublings, each told where in the picture it is by two extra channels, then a bilinear
    step to pixels and a small convolution per output.
    """

    def __init__(self, config: Pi3XConfig, outputs: tuple[int, ...]) -> None:
        super().__init__()
        widths = (config.conv_in, *config.conv_widths)
        self.upsample_blocks = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(
                    nn.ConvTranspose2d(before + 2, after, 2, stride=2), _conv3(after, after)
                ),
                ResidualConv(after),
                ResidualConv(after),
            )
            for before, after in pairwise(widths)
        )
        self.output_block = nn.ModuleList(
            nn.Sequential(
                _conv3(widths[-1] + 2, config.conv_hidden),
                nn.ReLU(),
                nn.Conv2d(config.conv_hidden, n, 1),
            )
            for n in outputs
        )
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d):
                with torch.no_grad():  # no checkerboard at the start of training
                    module.weight.copy_(module.weight[:, :, :1, :1].expand_as(module.weight))

    def forward(self, features: Tensor, rows: int, columns: int) -> list[Tensor]:
        aspect = columns / rows
        x = features.transpose(1, 2).unflatten(2, (rows, columns))
        for block in self.upsample_blocks:
            x = block(_with_uv(x, aspect))
        x = functional.interpolate(
            x, size=(PATCH * rows, PATCH * columns), mode="bilinear", align_corners=False
        )
        x = _with_uv(x, aspect)
        return [block(x) for block in self.output_block]


def _with_uv(x: Tensor, aspect: float) -> Tensor:
    """Append two channels: column and row as fractions of the picture's half diagonal."""
    height, width = x.shape[-2:]
    diagonal = (1 + aspect**2) ** 0.5
    options: dict[str, Any] = {"device": x.device, "dtype": x.dtype}
    reach_u = aspect / diagonal * (width - 1) / width
    reach_v = 1 / diagonal * (height - 1) / height
    u = torch.linspace(-reach_u, reach_u, width, **options)
    v = torch.linspace(-reach_v, reach_v, height, **options)
    uv = torch.stack([u.expand(height, width), v[:, None].expand(height, width)])
    return torch.cat([x, uv.expand(x.shape[0], -1, -1, -1)], dim=1)


class ResidualLinear(nn.Module):
    """Three linear layers with ReLU after each, plus the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv1 = nn.Linear(width, width)
        self.res_conv2 = nn.Linear(width, width)
        self.res_conv3 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.res_conv1(x))
        y = functional.relu(self.res_conv2(y))
        return x + functional.relu(self.res_conv3(y))


class CameraHead(nn.Module):
    """Patch features [M, P, width] to camera-to-world matrices [M, 4, 4] of unknown scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.res_conv = nn.ModuleList(ResidualLinear(width) for _ in range(2))
        self.more_mlps = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )
        self.fc_t = nn.Linear(width, 3)
        self.fc_rot = nn.Linear(width, 9)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.res_conv:
            features = layer(features)
        pooled = self.more_mlps(features.mean(dim=1))
        rotation = nearest_rotation(self.fc_rot(pooled).unflatten(-1, (3, 3)))
        top = torch.cat([rotation, self.fc_t(pooled)[..., None]], dim=-1)
        last = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(top.shape[0], 1, 4)
        return torch.cat([top, last], dim=-2)


class _Procrustes(torch.autograd.Function):
    """Proper rotation nearest to a matrix, with the derivative of the projection itself.

    Differentiating through the two factors of the singular value decomposition is infinite when
    singular values coincide, which is exactly where a trained head ends up. The projection's own
    derivative only has sums of singular values in the denominator.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        u, s, vt = torch.linalg.svd(matrix)
        sign = torch.linalg.det(u @ vt)
        flip = torch.ones_like(s)
        flip[..., 2] = sign
        u = u * flip[..., None, :]
        ctx.save_for_backward(u, s * flip, vt)
        return u @ vt

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        u, s, vt = ctx.saved_tensors
        b = u.mT @ gradients[0] @ vt.mT
        sums = (s[..., :, None] + s[..., None, :]).clamp(min=1e-3)
        return u @ ((b - b.mT) / sums) @ vt


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Rotation nearest to [..., 3, 3] after its rows are scaled to unit length; differentiable."""
    rotation: Tensor = _Procrustes.apply(functional.normalize(matrix, dim=-1))
    return rotation
