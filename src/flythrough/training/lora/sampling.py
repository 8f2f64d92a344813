"""A chunk sampled during and after training, by the generator that users run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flythrough.conditioning.prompts import with_trigger
from flythrough.conditioning.warped_history import WarpHistorySettings
from flythrough.evaluation.photometry import masked_psnr
from flythrough.generators.base import SamplerSettings
from flythrough.generators.given_warp import GivenWarp
from flythrough.generators.warp import WarpClip, levels
from flythrough.generators.warp_as_history import (
    CAMERA_ADAPTER,
    WarpAsHistoryGenerator,
    WarpAsHistorySettings,
)
from flythrough.media.fitting import default_intrinsics
from flythrough.models.adapters import set_lora_active
from flythrough.models.catalog import ModelFolder
from flythrough.models.helios import HeliosTransformer
from flythrough.models.loading import LoadedModel
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import load_any_codec
from flythrough.rollout.chunk import ChunkRequest
from flythrough.rollout.rollout import Rollout, Start
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.guidance import Guidance
from flythrough.training.lora.items import RenderedItem


@dataclass(frozen=True, eq=False)
class Sampler:
    """Generates the chunk of ``item``, a first clip, with the adapter or without.

    The codec is read for each chunk and freed again; ``embeddings`` (prompt, features) stand in for
    the text encoder.
    """

    folder: ModelFolder
    transformer: HeliosTransformer
    scheduler: dict[str, Any]
    item: RenderedItem
    caption: str
    embeddings: Sequence[tuple[str, Tensor]]
    history: WarpHistorySettings
    stages: int
    seed: int

    def chunk(self, *, adapter: bool) -> np.ndarray:
        """Frames uint8 [33,H,W,3]."""
        set_lora_active(self.transformer, CAMERA_ADAPTER, False)
        defaults, model = self.folder.defaults, self._model()
        sampler = SamplerSettings(
            steps=defaults.steps,
            amplify_first_chunk=defaults.amplify_first_chunk,
            guidance=Guidance(
                scale=defaults.guidance_scale,
                zero_star=defaults.zero_star,
                zero_steps=defaults.zero_steps,
            ),
            max_sequence_length=defaults.max_sequence_length,
        )
        settings = WarpAsHistorySettings(
            history=self.history,
            stages=self.stages,
            lora=adapter,
            trigger=defaults.prompt_trigger,
        )
        pixels, mask = levels(WarpClip(self.item.warp, self.item.visible))
        source = GivenWarp(pixels, mask, model.device)
        made = WarpAsHistoryGenerator(model, sampler, settings, source)
        frames = made.chunk(self._rollout(), ChunkRequest(index=0, prompt=self.caption)).frames
        set_lora_active(self.transformer, CAMERA_ADAPTER, True)
        return frames

    def psnr(self, frames: np.ndarray) -> float | None:
        """dB against the clip on pixels that the warp shows; None where it shows none."""
        seen = self.item.visible.cpu().numpy() > 0.5
        return masked_psnr(frames, np.ascontiguousarray(self.item.target), seen)

    def rows(self) -> dict[str, np.ndarray]:
        """Truth, warp and mask for a picture."""
        pixels, mask = levels(WarpClip(self.item.warp, self.item.visible))
        return {"truth": np.asarray(self.item.target), "warp": pixels, "mask": mask}

    def _rollout(self) -> Rollout:
        height, width = self.item.target.shape[1:3]
        defaults = self.folder.defaults
        spec = RolloutSpec(
            method="warp-as-history",
            model=self.folder.name,
            model_digest="",
            height=height,
            width=width,
            fps=defaults.fps,
            seed=self.seed,
            prompt=self.caption,
        )
        image = np.ascontiguousarray(self.item.anchor)
        return Rollout(spec, Start(image=image, intrinsics=default_intrinsics(height, width)))

    def _model(self) -> LoadedModel:
        device = next(self.transformer.parameters()).device
        prompts = PromptEncoder.from_folder(self.folder.path, device=device, keep=False)
        for prompt, features in self.embeddings:
            prompts.remember(prompt, features)
        return LoadedModel(
            folder=self.folder,
            transformer=self.transformer,
            codec=load_any_codec(self.folder.path / "vae", device),
            prompts=prompts,
            scheduler=self.scheduler,
            device=device,
        )


def prompts_of(caption: str, trigger: str) -> tuple[str, str, str]:
    """What sampling may ask the text encoder: with trigger, without, and nothing."""
    return with_trigger(caption, trigger), caption, ""


def free_cache(device: torch.device) -> None:
    """Give memory of what was just released back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
