"""WorldWarp: render what is known into the coming cameras, then fill and revise it (2512.19678).

For every chunk the scene memory shows what it knows to the chunk's cameras. These hints are encoded
together with the last frames of the video so far, and ST-Diff denoises all frames at once: what was
not seen from pure noise, what was rendered from partial noise, the shared frames not at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from flythrough import seeds
from flythrough.conditioning.hints import Hint, encoded_hint
from flythrough.conditioning.noise_field import FieldSettings, start_step, start_steps
from flythrough.generators.base import Report, silent
from flythrough.generators.helios import prompt_blend
from flythrough.generators.warp import WarpClip, WarpSource
from flythrough.models.captioner import Captioner
from flythrough.models.loading import LoadedStDiff
from flythrough.models.uploads import uploaded
from flythrough.rollout.chunk import LATENT_CHANNELS, Chunk, ChunkRequest
from flythrough.rollout.rollout import Rollout
from flythrough.rollout.spec import RolloutSpec
from flythrough.sampling.asynchronous import Denoise, noise_levels, sample_asynchronous
from flythrough.sampling.guidance import Guidance

PHOTO_FRAMES = 1
"""The first chunk keeps the photo alone."""


@dataclass(frozen=True, kw_only=True)
class WorldWarpSettings:
    """How chunks are made; their length and overlap belong to the rollout.

    Attributes:
        noise_field: how much of what was rendered is rewritten, and where something was rendered.
        steps, shift: the noise levels of a run.
        guidance: towards the prompt and away from the rollout's negative prompt.
        blend_chunks: chunks that lead from an old prompt to a new one; 0: at once.
        max_sequence_length: tokens of a prompt.
    """

    noise_field: FieldSettings = field(default_factory=FieldSettings)
    steps: int = 50
    shift: float = 5.0
    guidance: Guidance = field(default_factory=lambda: Guidance(scale=5.0))
    blend_chunks: int = 0
    max_sequence_length: int = 512

    @property
    def reference(self) -> bool:
        """The published masks, step count and arithmetic with their defects."""
        return self.noise_field.reference


class WorldWarpGenerator:
    """Camera-controlled chunks by asynchronous diffusion.

    Args:
        source: the scene so far from the cameras of a request: any scene memory that renders.
        captioner: describes the newest chunk (or the photo); its words are the chunk's prompt, and
            the request's own prompt is what it is told of the user's wishes.
    """

    def __init__(
        self,
        model: LoadedStDiff,
        settings: WorldWarpSettings,
        source: WarpSource,
        captioner: Captioner | None = None,
    ) -> None:
        self.model, self.settings, self.source = model, settings, source
        self.captioner = captioner

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Chunk:
        with torch.inference_mode():
            started = time.monotonic()
            if self.captioner is not None:
                report("caption", 0.0)
                request = self._described(rollout, request, self.captioner)
            report("warp", 0.0)
            warp = self.source.warp(rollout, request).to(self.model.device)
            report("encode", 0.1)
            hint = self.hint(rollout, warp)
            conditioned = time.monotonic()
            latents = self._sampled(rollout, request, hint, report)
            sampled = time.monotonic()
            report("decode", 0.9)
            video = self.model.codec.decode(latents)[0, :, -request.frames :]
            pixels = (video.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0)
            timings = {
                "condition": conditioned - started,
                "sample": sampled - conditioned,
                "decode": time.monotonic() - sampled,
            }
            return Chunk(
                request=request,
                latents=latents[0].float().cpu().numpy(),
                frames=np.ascontiguousarray(pixels.cpu().numpy()),
                timings=timings,
            )

    @staticmethod
    def _described(rollout: Rollout, request: ChunkRequest, captioner: Captioner) -> ChunkRequest:
        """The request with a prompt in the captioner's words; the user's are kept as its wish."""
        assert rollout.start is not None
        seen = rollout.chunks[-1].frames if rollout.chunks else rollout.start.image[None]
        words = captioner.describe(np.asarray(seen), request.prompt)
        return replace(request, prompt=words or request.prompt, wish=request.prompt)

    def hint(self, rollout: Rollout, warp: WarpClip) -> Hint:
        """The last frames so far, then what was rendered for the new ones, as latents."""
        history = self._video(self.history(rollout))
        rendered, visible = warp.rgb.transpose(0, 1)[None], warp.visible[None]
        if not rollout.chunks:  # the photo is the first of the new frames
            rendered, visible = rendered[:, :, PHOTO_FRAMES:], visible[:, PHOTO_FRAMES:]
        return encoded_hint(self.model.codec, history, rendered, visible, self.settings.noise_field)

    @staticmethod
    def history(rollout: Rollout) -> np.ndarray:
        """The frames that the next chunk shares with the past, uint8 [c,H,W,3]."""
        assert rollout.start is not None
        if not rollout.chunks:
            return rollout.start.image[None]
        wanted = rollout.spec.window.overlap
        newest: list[np.ndarray] = []
        for chunk in reversed(rollout.chunks):
            newest.insert(0, chunk.frames[-wanted:])
            wanted -= len(newest[0])
            if wanted <= 0:
                break
        return np.concatenate(newest)

    def start(self, hint: Hint) -> Tensor:
        """The step from which each latent cell takes part, int64 [1,L,h,w]."""
        settings = self.settings
        return start_steps(hint.valid, settings.steps, settings.noise_field, hint.context)

    def _sampled(
        self, rollout: Rollout, request: ChunkRequest, hint: Hint, report: Report
    ) -> Tensor:
        settings, spec = self.settings, rollout.spec
        prompted = self._blended(rollout, request)

        def on_step(done: int, total: int) -> None:
            report("denoise", 0.15 + 0.75 * done / total)

        return sample_asynchronous(
            self._denoise(prompted, spec.negative_prompt),
            hint.latents,
            self.start_noise(rollout, request.index, hint.latents.shape),
            self.start(hint).to(hint.latents.device),
            noise_levels(settings.steps, settings.shift),
            reference=settings.reference,
            on_step=on_step,
        )

    def picture(self, spec: RolloutSpec, photo: np.ndarray | None, strength: float) -> np.ndarray:
        """A first picture uint8 [H,W,3] in the prompt's words: the first frame of a chunk whose
        cells all begin at one noise level, from a photo [H,W,3] that stands still (the lower
        ``strength``, the more of it is left) or from nothing."""
        settings, window = self.settings, spec.window
        shape = (1, LATENT_CHANNELS, window.latents, spec.height // 8, spec.width // 8)
        with torch.inference_mode():
            if photo is None:
                hint = torch.zeros(shape, device=self.model.device)
            else:
                still = np.broadcast_to(photo, (window.frames, *photo.shape))
                hint = self.model.codec.encode(self._video(still))
            first = 0 if photo is None else start_step(strength, settings.steps)
            start = torch.full((1, *hint.shape[2:]), first, device=hint.device)
            source = seeds.generator(spec.seed, 0, "first-picture")
            latents = sample_asynchronous(
                self._denoise(self._embedding(spec.prompt), spec.negative_prompt),
                hint,
                torch.randn(hint.shape, generator=source).to(hint.device),
                start,
                noise_levels(settings.steps, settings.shift),
                reference=settings.reference,
            )
            pixels = self.model.codec.decode(latents[:, :, :1])[0, :, 0]
        levels = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        return np.ascontiguousarray(levels.cpu().numpy())

    def _denoise(self, prompted: Tensor, negative_prompt: str) -> Denoise:
        """The network with guidance away from ``negative_prompt``."""
        guidance = self.settings.guidance
        plain = self._embedding(negative_prompt) if guidance.active else None
        self.model.prompts.release()

        def denoise(latents: Tensor, timesteps: Tensor) -> Tensor:
            velocity = self._velocity(latents, timesteps, prompted)
            if plain is None:
                return velocity
            without = self._velocity(latents, timesteps, plain)
            return guidance.combined(velocity, without, 0, 0)

        return denoise

    def start_noise(self, rollout: Rollout, index: int, shape: torch.Size) -> Tensor:
        """The noise of chunk ``index``: a function of the seed alone."""
        source = seeds.generator(rollout.spec.seed, index, "start-noise")
        return uploaded(torch.randn(shape, generator=source), self.model.device)

    def _velocity(self, latents: Tensor, timesteps: Tensor, text: Tensor) -> Tensor:
        """One call of the network; float32 in and out."""
        net = self.model.denoiser
        velocity: Tensor = net(latents.to(net.dtype), timesteps, text.to(net.dtype))
        return velocity.float()

    def _embedding(self, prompt: str) -> Tensor:
        return self.model.prompts.encode([prompt], self.settings.max_sequence_length)

    def _blended(self, rollout: Rollout, request: ChunkRequest) -> Tensor:
        """The request's prompt, or a mixture on the way to it from the prompt before."""
        old, weight = prompt_blend(rollout, request, self.settings.blend_chunks)
        new = self._embedding(request.prompt)
        return new if old is None else torch.lerp(self._embedding(old), new, weight)

    def _video(self, frames: np.ndarray) -> Tensor:
        """uint8 [T,H,W,3] -> [1,3,T,H,W] in [0,1]."""
        pixels = uploaded(frames, self.model.device)
        return pixels.permute(3, 0, 1, 2)[None] / 255
