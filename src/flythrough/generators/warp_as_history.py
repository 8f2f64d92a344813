"""Warp-as-History: the camera path enters as history at the target frames (arXiv 2605.15182).

For every chunk the scene seen so far is rendered from the requested cameras, encoded to latents and
placed in the short history band at the frame indices of the target; tokens that nothing was seen
for are left out. This is done in the coarsest pyramid stage, where the camera adapter is active
too; finer stages see the native history alone.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flythrough import seeds
from flythrough.conditioning.condition_noise import (
    CONDITION_SIGMAS,
    SigmaRange,
    with_condition_noise,
)
from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.conditioning.warped_history import (
    WarpHistorySettings,
    warped_history,
)
from flythrough.generators.base import Report, SamplerSettings, silent
from flythrough.generators.given_warp import GivenWarp
from flythrough.generators.helios import HeliosGenerator, StageConditioning
from flythrough.generators.side_thread import with_work_beside
from flythrough.generators.unfinished import Unfinished
from flythrough.generators.warp import WarpClip, WarpSource
from flythrough.models.adapters import set_lora_active
from flythrough.models.history_tokens import ChosenTokens
from flythrough.models.loading import LoadedModel
from flythrough.rollout.chunk import Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout

CAMERA_ADAPTER = "camera"


@dataclass(frozen=True, kw_only=True)
class WarpAsHistorySettings:
    """How the warp takes part.

    Attributes:
        history: how it is packed: band, alignment, token selection, how much of the past stays.
        stages: pyramid stages, from the coarsest, that see it.
        lora: the camera adapter is attached and active in those stages.
        trigger: in front of the prompt while the adapter is active; empty: nothing.
        noise: range of noise levels of warp and anchor (one level a latent); None: both clean.
        photo_noise: the photo's latents are noised instead of the anchor alone, in all stages.
            The photo stays clean as the video's first frame.
    """

    history: WarpHistorySettings
    stages: int = 1
    lora: bool = True
    trigger: str = "camctl23x."
    noise: SigmaRange | None = CONDITION_SIGMAS
    photo_noise: bool = False


class WarpAsHistoryGenerator:
    """Camera-controlled chunks.

    Args:
        model: a Helios-family model, with the adapter attached under the name ``camera`` when
            ``settings.lora`` is set.
        source: the scene seen so far from the cameras of a request, or a pre-rendered warp.
    """

    def __init__(
        self,
        model: LoadedModel,
        sampler: SamplerSettings,
        settings: WarpAsHistorySettings,
        source: WarpSource,
    ) -> None:
        self.model, self.settings, self.source = model, settings, source
        self.helios = HeliosGenerator(model, sampler)

    def with_source(self, source: WarpSource) -> WarpAsHistoryGenerator:
        """The same model and settings with another scene."""
        other = copy(self)
        other.source = source
        return other

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Chunk:
        return self.begin(rollout, request, report).finished()

    def begin(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Unfinished:
        """The chunk as soon as its latents are known (:class:`generators.unfinished.Ahead`), if its
        warp was rendered elsewhere; a scene memory needs the frames of every chunk."""
        with torch.inference_mode():
            started = time.monotonic()
            report("warp", 0.0)
            warp = self.source.warp(rollout, request).to(self.model.device)
            report("encode", 0.1)
            warped = self.warped(rollout, request, warp)
            native = self.helios.native(rollout, request, noisy=self.settings.photo_noise)
            conditioned = time.monotonic() - started

            def conditioning(stage: int) -> StageConditioning:
                chosen = warped if stage < self.settings.stages else native
                if self.settings.lora:
                    set_lora_active(self.model.transformer, CAMERA_ADAPTER, chosen.camera)
                return chosen

            beside = isinstance(self.source, GivenWarp)
            made = self.helios.sampled(rollout, request, conditioning, report, beside=beside)
        timings = {"condition": conditioned, **made.sampled.timings}
        return replace(made, sampled=replace(made.sampled, timings=timings))

    def warped(self, rollout: Rollout, request: ChunkRequest, warp: WarpClip) -> StageConditioning:
        """History with the encoded warp at the target's frame indices."""
        settings = self.settings
        visible = visibility_to_latent(warp.visible[None], self.helios.latent_size(rollout))
        prefix, past = self._anchored(rollout)
        # The choice waits for the rendering alone if it is made before the device has to encode,
        # and what follows from it is done beside that.
        blank = prefix.new_empty(*prefix.shape[:2], *visible.shape[1:])
        empty, _ = warped_history(prefix, past, blank, visible, settings=settings.history)
        chosen = self.model.transformer.choose_tokens(empty)
        latents = self._encoded(warp.rgb.transpose(0, 1)[None], chosen, visible.shape[1:])
        history, target = warped_history(
            prefix,
            past,
            self._noised(rollout, "warp-noise", request.index, latents),
            visible,
            settings=settings.history,
        )
        return StageConditioning(
            history=replace(history, chosen=chosen),
            target=target.to(self.model.device),
            embedding=self.helios.blended_embedding(
                rollout, request, settings.trigger if settings.lora else None
            ),
            camera=settings.lora,
        )

    def _encoded(self, video: Tensor, chosen: ChosenTokens, shape: torch.Size) -> Tensor:
        """Latents of the warp, of ``shape`` (t, h, w); attention of the stages that see it is
        planned meanwhile."""
        codec, fast = self.model.codec, self.model.fast
        shrinks = [
            2 ** (self.helios.pyramid.stages - 1 - stage) for stage in range(self.settings.stages)
        ]
        sizes = [(shape[0], shape[1] // shrink, shape[2] // shrink) for shrink in shrinks]
        if fast is None or not any(fast.would_plan(chosen, size) for size in sizes):
            return codec.encode(video)

        def plan() -> None:
            for size in sizes:
                fast.plan_attention(chosen, size)

        return with_work_beside(lambda: codec.encode(video), plan, self.model.device)

    def _anchored(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """The photo's latent as anchor, and the past: noise is added to one of them at most once,
        equally in all chunks."""
        if self.settings.photo_noise:
            noisy = self.helios.noisy_anchors(rollout)
            return noisy.prefix, self.helios.past(rollout, noisy)
        prefix = self._noised(rollout, "prefix-noise", None, self.helios.prefix(rollout))
        return prefix, self.helios.past(rollout)

    def _noised(self, rollout: Rollout, purpose: str, index: int | None, latents: Tensor) -> Tensor:
        if self.settings.noise is None:
            return latents
        path = (purpose,) if index is None else (index, purpose)
        source = seeds.generator(rollout.spec.seed, *path)
        return with_condition_noise(latents, source, self.settings.noise)
