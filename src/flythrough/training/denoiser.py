"""Training of the denoiser: flow matching in every pyramid stage with text, image or video history.

The objective is Helios' unified predictor of the pyramid (specification 6.6); history is dropped
and corrupted as in its Easy Anti-Drifting (6.4). Conditioning comes from the same functions as at
inference. Camera training (Warp-as-History, 15.6) is the same objective with a warped history, an
adapter and only the stages that see the warp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flythrough import seeds
from flythrough.conditioning.corruption import CorruptionSettings, corrupt_history, drop_history
from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.warped_history import WarpHistorySettings, noised, warped_history
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.flow_items import flow_items
from flythrough.training.latents import EncodedClips, LatentStore

Refill = Callable[[int, int], EncodedClips]
"""(step, rank) -> freshly encoded clips."""


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
    """Shape of a step. ``on_schedule`` is the share of samples whose noise level is one that the
    few-step sampler visits; the rest is uniform."""

    batch: int = 32
    seed: int = 0
    stages: tuple[int, ...] = (0, 1, 2)
    refill_every: int = 2
    capacity: int = 2048
    on_schedule: float = 0.5
    schedule_points: tuple[tuple[float, ...], ...] = (
        (0.998, 0.80, 0.354, 0.18),
        (0.999, 0.76, 0.451, 0.22),
        (0.999, 0.82, 0.657, 0.40),
    )
    drop_caption: float = 0.1


@dataclass(frozen=True, eq=False)
class Conditioned:
    """History, target indices and text of a batch."""

    history: History
    target: Tensor
    embedding: Tensor


class DenoiserTask:
    """Flow matching over a store of latent clips.

    Args:
        transformer: the network.
        text: the text encoder (trained jointly when it requires gradients).
        refill: makes new clips.
        camera: settings of the warped history, or None for the native history.
        trained: the modules whose parameters are optimised.
    """

    def __init__(
        self,
        name: str,
        transformer: HeliosTransformer,
        text: nn.Module,
        refill: Refill,
        pyramid: PyramidConfig,
        settings: DenoiserSettings,
        trained: nn.ModuleDict,
        export: Callable[[Path], None],
        camera: WarpHistorySettings | None = None,
        preview: Callable[[Path, int], dict[str, float]] | None = None,
    ) -> None:
        self.name, self.transformer, self.text = name, transformer, text
        self.refill, self.pyramid, self.settings = refill, pyramid, settings
        self.modules, self.camera = trained, camera
        self._export, self._preview = export, preview
        self.store = LatentStore(settings.capacity)

    def export(self, folder: Path) -> None:
        self._export(folder)

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        return {} if self._preview is None else self._preview(folder, step)

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        s = self.settings
        if self.store.size < s.batch or step % s.refill_every == 0:
            self._fill(step, rank)
        source = seeds.generator(s.seed, "denoiser", step, rank, device=self._device)
        clips = self.store.draw(s.batch, source)
        chunk = int(
            torch.randint(clips.chunks.shape[1], (1,), generator=seeds.generator(s.seed, step))
        )
        conditioned = self.conditioning(clips, chunk, source)
        target = clips.chunks[:, chunk]
        losses = {
            f"stage{k}": self._stage_loss(target, conditioned, k, source) for k in s.stages
        }
        losses["total"] = torch.stack(list(losses.values())).mean()
        return losses

    @property
    def _device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def _fill(self, step: int, rank: int) -> None:
        with torch.no_grad():
            while True:
                self.store.add(self.refill(step + 1_000_000 * (self.store.size % 7), rank))
                if self.store.size >= self.settings.batch:
                    return

    def conditioning(
        self, clips: EncodedClips, chunk: int, source: torch.Generator
    ) -> Conditioned:
        """What inference would see before ``chunk``, dropped and corrupted for training."""
        past, prefix = past_of(clips, chunk), clips.prefix
        corruption = CorruptionSettings()
        if self.camera is None:
            past, prefix = drop_history(past, prefix, source, corruption)
        past, prefix = corrupt_history(past, prefix, source, corruption)
        embedding = self._embedding(clips, source)
        if self.camera is None:
            target = target_indices(len(past)).to(self._device)
            return Conditioned(native_history(past, prefix), target, embedding)
        assert clips.warps is not None
        assert clips.visible is not None
        warp = clips.warps[:, chunk]
        sigma = 0.111 + 0.024 * _uniform(source, len(warp), 1, warp.shape[2], 1, 1)
        noise = torch.randn(warp.shape, generator=source, device=warp.device)
        history, target = warped_history(
            prefix,
            past[:, :, -sum(self.camera.prev_sizes) :],
            noised(warp, sigma, noise),
            clips.visible[:, chunk],
            settings=self.camera,
        )
        return Conditioned(history, target.to(self._device), embedding)

    def _embedding(self, clips: EncodedClips, source: torch.Generator) -> Tensor:
        keep = _uniform(source, len(clips.tokens), 1) >= self.settings.drop_caption
        mask = clips.mask * keep
        hidden = self.text(input_ids=clips.tokens, attention_mask=clips.mask).last_hidden_state
        return hidden * mask[..., None]

    def _stage_loss(
        self, clean: Tensor, conditioned: Conditioned, stage: int, source: torch.Generator
    ) -> Tensor:
        noise = torch.randn(clean.shape, generator=source, device=clean.device)
        item = flow_items(clean, noise, stage, self._levels(stage, len(clean), source), self.pyramid)
        velocity = self.transformer(
            item.x,
            item.timestep,
            conditioned.embedding,
            indices_hidden_states=conditioned.target,
            history=conditioned.history,
            selection="mask",
        )
        return F.mse_loss(velocity.float(), item.target.float())

    def _levels(self, stage: int, batch: int, source: torch.Generator) -> Tensor:
        """Positions u in [0,1) on the stage's grid (sigma is about 1 - u)."""
        s = self.settings
        uniform = _uniform(source, batch)
        points = torch.tensor(s.schedule_points[stage], device=self._device)
        which = torch.randint(len(points), (batch,), generator=source, device=self._device)
        jitter = 0.02 * (_uniform(source, batch) - 0.5)
        visited = (1 - points[which] + jitter).clamp(0, 0.999)
        return torch.where(_uniform(source, batch) < s.on_schedule, visited, uniform)


def past_of(clips: EncodedClips, chunk: int) -> Tensor:
    """Latents before ``chunk`` as inference holds them: steady frame, then finished chunks."""
    parts = [clips.steady, *(clips.chunks[:, i] for i in range(chunk))]
    return torch.cat(parts, dim=2)


def _uniform(source: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=source, device=source.device)
