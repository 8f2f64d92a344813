"""The generator that users run, under the recorded weights and the published random numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from published_draws import GOLDEN
from published_folder import published_model
from published_stream import PublishedStream, sampling_model
from torch import Tensor

from flythrough.engine.plan import Leg, Plan
from flythrough.generators import helios, warp_as_history
from flythrough.generators.base import SamplerSettings
from flythrough.generators.warp import WarpSource
from flythrough.generators.warp_as_history import (
    CAMERA_ADAPTER,
    WarpAsHistoryGenerator,
    WarpAsHistorySettings,
)
from flythrough.models.adapters import attach_lora
from flythrough.models.lora_files import read_lora
from flythrough.rollout.chunk import Chunk
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec

META = json.loads((GOLDEN / "sampler" / "meta.json").read_text())
_LATENTS = (8, 16)


@dataclass(frozen=True)
class PublishedRun:
    """A planned run: ``rollout`` is its empty beginning."""

    generator: WarpAsHistoryGenerator
    rollout: Rollout
    plan: Plan

    def next(self, rollout: Rollout) -> Chunk:
        return self.generator.chunk(rollout, self.plan.request(rollout))

    def whole(self) -> Rollout:
        rollout = self.rollout
        while len(rollout.chunks) < self.plan.chunks:
            rollout = rollout.appended(self.next(rollout))
        return rollout

    def latents(self, rollout: Rollout) -> Tensor:
        """As published: in front the still latent that the history began with."""
        anchors = self.generator.helios.anchors(rollout)
        if self.generator.settings.photo_noise:
            anchors = self.generator.helios.noisy_anchors(rollout)
        return torch.cat((anchors.past, torch.from_numpy(rollout.latents())[None]), dim=2)


def published_run(
    photo: np.ndarray,
    source: WarpSource,
    settings: WarpAsHistorySettings,
    patch: pytest.MonkeyPatch,
    *,
    sampler: SamplerSettings,
    frames: int,
    lora: Path | None = None,
    seed: int = META["generator_seed"],
) -> PublishedRun:
    """Args:
    photo: uint8 [H,W,3], fitted to the output's size.
    lora: the adapter, needed where ``settings`` has one.
    """
    plan = Plan(legs=(Leg(0, frames, META["prompt"], None),))
    stream = PublishedStream(
        seed,
        _LATENTS,
        plan.chunks,
        warp_noise=settings.noise is not None,
        image_noise=settings.photo_noise,
    )
    for module in (helios, warp_as_history):
        patch.setattr(module, "seeds", SimpleNamespace(generator=stream.generator))
    loaded = published_model.__wrapped__() if settings.lora else published_model()
    model = sampling_model(loaded, stream, patch)
    if settings.lora:
        assert lora is not None
        attach_lora(model.transformer, read_lora(lora), CAMERA_ADAPTER)
    generator = WarpAsHistoryGenerator(model, sampler, settings, source)
    start = Start(image=photo, intrinsics=np.eye(3))
    height, width = start.size
    spec = RolloutSpec(
        method="warp-as-history",
        model="recorded",
        model_digest="0",
        height=height,
        width=width,
        fps=24.0,
        seed=seed,
        prompt=META["prompt"],
    )
    return PublishedRun(generator, Rollout(spec=spec, start=start), plan)
