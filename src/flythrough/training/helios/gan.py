"""The adversarial part of stage 3b: heads on the critic that tell made latents from real ones.

Sign of the published code: heads learn high logits for made latents and low ones for real ones;
the generator lowers the logit of what it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.errors import InputError
from flythrough.models.helios import HeliosTransformer
from flythrough.models.precision import without_autocast
from flythrough.training.denoiser import Conditioned
from flythrough.training.helios.material import velocity

_STRIDES = ((2, 2, 2), (2, 2, 2), (2, 1, 1), (2, 1, 1))
_GROUPS = 32


class Head(nn.Module):
    """Convolutions that halve time and space twice, then time twice; a mean; one logit."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stride in _STRIDES:
            layers += [
                nn.Conv3d(channels, width, 3, stride=stride, padding=1),
                nn.GroupNorm(_GROUPS, width),
                nn.SiLU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.out = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """[B,C,T,h,w] to logits [B]."""
        found: Tensor = self.out(self.layers(features).mean((2, 3, 4)))
        return found[:, 0]


class Heads(nn.Module):
    """One head on each of ``blocks`` of the critic, and one on its velocity.

    Raises:
        InputError: a block that the network does not have.
    """

    def __init__(self, network: HeliosTransformer, blocks: Sequence[int], width: int) -> None:
        super().__init__()
        depth, dim = len(network.blocks), network.patch_embedding.weight.shape[0]
        if any(block >= depth for block in blocks):
            raise InputError(
                f"[gan] blocks {list(blocks)} name a block that this network of {depth} lacks; "
                f"give numbers from 0 to {depth - 1}."
            )
        self.blocks = tuple(blocks)
        heads = [Head(dim, width) for _ in blocks]
        self.heads = nn.ModuleList([*heads, Head(int(network.config["out_channels"]), width)])

    def forward(self, features: Sequence[Tensor], corner: tuple[float, float]) -> Tensor:
        """Logits [B,heads] from features [B,C,T,h,w], of which each head sees half the height and
        width, at the place ``corner`` in [0,1). In float32: the penalty compares logits that are
        almost equal, and norms of few values have no gradient in bfloat16."""
        pairs = zip(self.heads, features, strict=True)
        with without_autocast(features[0].device):
            return torch.stack([head(half_crop(seen, corner)) for head, seen in pairs], dim=1)


def half_crop(features: Tensor, corner: tuple[float, float]) -> Tensor:
    """Half the height and width of [B,C,T,h,w]; ``corner`` says where, as shares of the rest."""
    height, width = features.shape[-2:]
    rows, columns = max(1, height // 2), max(1, width // 2)
    top = int(corner[0] * (height - rows + 1))
    left = int(corner[1] * (width - columns + 1))
    return features[..., top : top + rows, left : left + columns]


def critic_features(
    network: HeliosTransformer,
    blocks: Sequence[int],
    x: Tensor,
    timestep: Tensor,
    given: Conditioned,
) -> list[Tensor]:
    """Outputs of ``blocks`` for the noisy tokens as [B,D,T,h/2,w/2], then the velocity."""
    with _captured(network, blocks) as caught:
        moved = velocity(network, x, timestep, given)
        found = [caught[block] for block in blocks]
    grid = x.shape[2], x.shape[3] // 2, x.shape[4] // 2
    return [*(t.float().transpose(1, 2).unflatten(2, grid) for t in found), moved]


@contextmanager
def _captured(network: HeliosTransformer, blocks: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    caught: dict[int, Tensor] = {}

    def keep(number: int) -> object:
        def hook(_module: nn.Module, _given: object, made: tuple[Tensor, Tensor]) -> None:
            caught[number] = made[1]

        return network.blocks[number].register_forward_hook(hook)

    handles = [keep(block) for block in blocks]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]


def generator_loss(made: Tensor) -> Tensor:
    """Mean softplus of the logits [B,heads] of made latents."""
    return functional.softplus(made).mean()


def critic_loss(made: Tensor, real: Tensor) -> Tensor:
    """Mean softplus of -logit for made latents, plus that of the logit for real ones."""
    return functional.softplus(-made).mean() + functional.softplus(real).mean()


def r1_penalty(real: Tensor, perturbed: Tensor) -> Tensor:
    """Mean square change of logits under a small perturbation: R1 without second derivatives."""
    return functional.mse_loss(perturbed, real)
