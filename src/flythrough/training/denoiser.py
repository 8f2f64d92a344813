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
from torch.nn import functional

from flythrough import seeds
from flythrough.conditioning.condition_noise import with_condition_noise
from flythrough.conditioning.corruption import CorruptionSettings, corrupt_history, drop_history
from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.warped_history import WarpHistorySettings, warped_history
from flythrough.models.helios import HeliosTransformer
from flythrough.models.history_tokens import History
from flythrough.sampling.dmd_schedule import PyramidConfig, pyramid_schedules
from flythrough.sampling.flow_items import FlowItem, flow_items, flow_items_at
from flythrough.training.latents import EncodedClips, Refill
from flythrough.training.recent_clips import RecentClips


@dataclass(frozen=True, kw_only=True)
class DenoiserSettings:
    """Shape of a step. ``on_schedule`` is the share of samples whose noise level is one that the
    sampler visits with ``steps`` steps, or twice as many as in a first chunk; the rest is uniform.
    """

    batch: int = 32
    seed: int = 0
    stages: tuple[int, ...] = (0, 1, 2)
    refill_every: int = 4
    capacity: int = 2048
    on_schedule: float = 0.5
    steps: int = 2
    latent_size: tuple[int, int, int] = (9, 24, 40)
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
    ) -> None:
        self.name, self.transformer, self.text = name, transformer, text
        self.refill, self.pyramid, self.settings = refill, pyramid, settings
        self.modules, self.camera = trained, camera
        self._export = export
        self.previewer: Callable[[Path, int], dict[str, float]] | None = None
        self.recent = RecentClips(
            refill,
            EncodedClips,
            capacity=settings.capacity,
            every=settings.refill_every,
            least=settings.batch,
        )
        self._levels = self._sampler_levels()

    def export(self, folder: Path) -> None:
        self._export(folder)

    def preview(self, folder: Path, step: int) -> dict[str, float]:
        return {} if self.previewer is None else self.previewer(folder, step)

    def loss(self, step: int, rank: int) -> dict[str, Tensor]:
        s = self.settings
        source = seeds.generator(s.seed, "denoiser", step, rank, device=self._device)
        clips = self.recent.at(step, rank).draw(s.batch, source)
        chunk = int(
            torch.randint(clips.chunks.shape[1], (1,), generator=seeds.generator(s.seed, step))
        )
        conditioned = self.conditioning(clips, chunk, source)
        target = clips.chunks[:, chunk]
        losses = {f"stage{k}": self._stage_loss(target, conditioned, k, source) for k in s.stages}
        losses["total"] = torch.stack(list(losses.values())).mean()
        return losses

    @property
    def _device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def conditioning(self, clips: EncodedClips, chunk: int, source: torch.Generator) -> Conditioned:
        """What inference would see before ``chunk``, dropped and corrupted for training."""
        past, prefix = past_of(clips, chunk), clips.prefix
        corruption = CorruptionSettings()
        if self.camera is None:
            past, prefix = drop_history(past, prefix, source, corruption)
        past, prefix = corrupt_history(past, prefix, source, corruption)
        embedding = self._embedding(clips, source)
        if self.camera is None:
            return self._native(past, prefix, embedding)
        return self._warped(clips, chunk, past, prefix, embedding, source)

    def native_conditioning(
        self, clips: EncodedClips, chunk: int, embedding: Tensor
    ) -> Conditioned:
        """The uncorrupted native history."""
        return self._native(past_of(clips, chunk), clips.prefix, embedding)

    def camera_conditioning(
        self, clips: EncodedClips, chunk: int, embedding: Tensor, source: torch.Generator
    ) -> Conditioned:
        """The warped history of clips that carry warps, uncorrupted, as inference has it.

        Draws the anchor's noise and then the warp's from ``source``.
        """
        prefix = with_condition_noise(clips.prefix, source)
        return self._warped(clips, chunk, past_of(clips, chunk), prefix, embedding, source)

    def velocity(self, x: Tensor, timestep: Tensor, given: Conditioned) -> Tensor:
        """One call of the network on a batch whose samples may see different tokens."""
        velocity: Tensor = self.transformer(
            x,
            timestep,
            given.embedding,
            indices_hidden_states=given.target,
            history=given.history,
            selection="mask",
        )
        return velocity

    def _native(self, past: Tensor, prefix: Tensor, embedding: Tensor) -> Conditioned:
        target = target_indices(len(past), device=past.device)
        return Conditioned(native_history(past, prefix), target, embedding)

    def _warped(
        self,
        clips: EncodedClips,
        chunk: int,
        past: Tensor,
        prefix: Tensor,
        embedding: Tensor,
        source: torch.Generator,
    ) -> Conditioned:
        assert self.camera is not None
        assert clips.warps is not None
        assert clips.visible is not None
        history, target = warped_history(
            prefix,
            past,
            with_condition_noise(clips.warps[:, chunk], source),
            clips.visible[:, chunk],
            settings=self.camera,
        )
        return Conditioned(history, target, embedding)

    def _embedding(self, clips: EncodedClips, source: torch.Generator) -> Tensor:
        keep = _uniform(source, len(clips.tokens), 1) >= self.settings.drop_caption
        mask = clips.mask * keep
        hidden = self.text(input_ids=clips.tokens, attention_mask=clips.mask).last_hidden_state
        return hidden * mask[..., None]

    def _stage_loss(
        self, clean: Tensor, conditioned: Conditioned, stage: int, source: torch.Generator
    ) -> Tensor:
        noise = torch.randn(clean.shape, generator=source, device=clean.device)
        item = self._item(clean, noise, stage, source)
        velocity = self.velocity(item.x, item.timestep, conditioned)
        return functional.mse_loss(velocity.float(), item.target.float())

    def _item(self, clean: Tensor, noise: Tensor, stage: int, source: torch.Generator) -> FlowItem:
        """Half the batch at the sampler's own noise levels, the rest anywhere in the stage."""
        exact = round(self.settings.on_schedule * len(clean))
        levels = self._levels[stage]
        which = torch.randint(len(levels), (exact,), generator=source, device=source.device)
        visited = flow_items_at(clean[:exact], noise[:exact], stage, levels[which], self.pyramid)
        u = _uniform(source, len(clean) - exact)
        anywhere = flow_items(clean[exact:], noise[exact:], stage, u, self.pyramid)
        return FlowItem(
            **{k: torch.cat((v, getattr(anywhere, k))) for k, v in vars(visited).items()}
        )

    def _sampler_levels(self) -> list[Tensor]:
        """The local noise levels that the sampler visits, stage by stage."""
        s = self.settings
        runs = [
            pyramid_schedules(self.pyramid, s.latent_size, (s.steps,) * 3, amplify=amplify)
            for amplify in (False, True)
        ]
        return [
            torch.cat([torch.as_tensor(run[k].sigmas).float() for run in runs]).to(self._device)
            for k in range(3)
        ]


def past_of(clips: EncodedClips, chunk: int) -> Tensor:
    """Latents before ``chunk`` as inference holds them: steady frame, then finished chunks."""
    parts = [clips.steady, *(clips.chunks[:, i] for i in range(chunk))]
    return torch.cat(parts, dim=2)


def _uniform(source: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=source, device=source.device)
