"""Stages 1 and 2: flow matching of the next chunk, at one size and along the pyramid.

Stage 1 makes a text-to-video network autoregressive: the history is the condition, all of it
corrupted so that the network takes it as context (arXiv 2603.04379, sections on history injection
and Easy Anti-Drifting). Stage 2 teaches it the segments of the pyramid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from flythrough.conditioning.corruption import CorruptionSettings
from flythrough.models.helios import HeliosTransformer
from flythrough.sampling.dmd_schedule import PyramidConfig, shift_factor, shift_mu, token_count
from flythrough.sampling.flow_items import FlowItem, flow_items
from flythrough.training.helios.material import (
    Source,
    conditioned,
    draws,
    flawed,
    velocity,
    with_plain,
)
from flythrough.training.helios.recipe_tables import Flow
from flythrough.training.players import Player

GRID = 1000

Export = Callable[[Path], None]


class FlowTask:
    """One network, one player.

    Args:
        stage: "1" (one size) or "2" (three sizes).
        pyramid: of stage 2; of stage 1 only its shift is used.
        drop_caption: share of samples with the negative prompt.
    """

    def __init__(
        self,
        stage: str,
        network: HeliosTransformer,
        player: Player,
        source: Source,
        pyramid: PyramidConfig,
        flow: Flow,
        history: CorruptionSettings,
        export: Export,
        *,
        seed: int = 0,
        drop_caption: float = 0.0,
    ) -> None:
        self.name = f"helios-{stage}"
        self.networks = nn.ModuleDict({"transformer": network})
        self.players = (player,)
        self.network, self.source, self.pyramid, self.flow = network, source, pyramid, flow
        self.history, self._export = history, export
        self._single, self._seed, self._drop_caption = stage == "1", seed, drop_caption

    def export(self, folder: Path) -> None:
        self._export(folder)

    def shards(self) -> list[tuple[nn.Module, Iterable[nn.Module]]]:
        return [(self.network, self.network.blocks)]

    def losses(self, player: str, step: int, rank: int) -> dict[str, Tensor]:
        del player
        device = self.source.plain.device
        source = draws(self._seed, step, rank, "flow", device=device)
        material = self.source(step, rank)
        material = with_plain(material, self.source.plain, self._drop_caption, source)
        past, prefix = flawed(material, source, self.history)
        given = conditioned(past, prefix, material.embedding)
        losses: dict[str, Tensor] = {}
        total = []
        for name, item in self.items(material.target, source):
            moved = velocity(self.network, item.x, item.timestep, given)
            error = functional.mse_loss(moved, item.target.float())
            losses[name] = error.detach()
            total.append(error)
        return {**losses, "total": torch.stack(total).mean()}

    def items(self, target: Tensor, source: torch.Generator) -> list[tuple[str, FlowItem]]:
        """Noisy points of ``target`` [B,16,9,h,w] and the velocities wanted there, by name.

        In stage 2, draw r uses the same noise in every pyramid stage.
        """
        if self._single:
            noise = torch.randn(target.shape, generator=source, device=target.device)
            levels = self.levels(len(target), source)
            return [("flow", single_item(target, noise, levels, self._factor(target)))]
        made = []
        for turn in range(max(self.flow.draws)):
            noise = torch.randn(target.shape, generator=source, device=target.device)
            for stage, count in enumerate(self.flow.draws):
                u = self.levels(len(target), source)
                if turn < count:
                    item = flow_items(target, noise, stage, u, self.pyramid)
                    made.append((f"stage{stage}.{turn}" if turn else f"stage{stage}", item))
        return made

    def levels(self, batch: int, source: torch.Generator) -> Tensor:
        """Places on the grid [B] in (0,1), 0 the noisiest: the logistic of normal numbers, or
        uniform."""
        if self.flow.weighting == "logit_normal":
            return torch.sigmoid(torch.randn(batch, generator=source, device=source.device))
        return torch.rand(batch, generator=source, device=source.device)

    def _factor(self, target: Tensor) -> float:
        if self.flow.shift == "off":
            return 1.0
        frames, height, width = target.shape[2:]
        mu = shift_mu(self.pyramid, token_count(frames, height, width))
        return shift_factor(self.pyramid, mu)


def single_item(clean: Tensor, noise: Tensor, u: Tensor, factor: float = 1.0) -> FlowItem:
    """Stage 1: the point (1 - sigma) clean + sigma noise, its velocity noise - clean, and the
    timestep 1000 sigma, where sigma is entry floor(1000 u) of 1, 0.999, ..., 0.001, shifted by the
    odds ``factor``."""
    index = (u * GRID).long().clamp(0, GRID - 1)
    sigma = (GRID - index).float() / GRID
    if factor != 1.0:
        sigma = factor / (factor + 1 / sigma - 1)
    level = sigma[:, None, None, None, None]
    return FlowItem(
        x=(1 - level) * clean + level * noise,
        timestep=GRID * sigma,
        target=noise - clean,
        sigma=sigma,
    )
