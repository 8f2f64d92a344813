"""Helios: text, image or video started chunks from a compressed history (arXiv 2603.04379).

One network does all three tasks; only what lies in the history differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flythrough import seeds
from flythrough.conditioning.condition_noise import with_condition_noise
from flythrough.conditioning.history import native_history, target_indices
from flythrough.conditioning.prompts import with_trigger
from flythrough.generators.base import Report, SamplerSettings, silent
from flythrough.generators.seams import softened
from flythrough.generators.unfinished import (
    Frames,
    OnSideStream,
    Unfinished,
    decoded_now,
    unfinished,
)
from flythrough.models.history_tokens import History, PackedHistory
from flythrough.models.loading import LoadedModel
from flythrough.models.uploads import uploaded
from flythrough.rollout.chunk import (
    CHUNK_FRAMES,
    HISTORY_CHUNKS,
    LATENT_FRAMES,
    Chunk,
    ChunkRequest,
)
from flythrough.rollout.rollout import Rollout, Start
from flythrough.sampling.dmd_schedule import PyramidConfig
from flythrough.sampling.noise import block_noise, reference_block_noise
from flythrough.sampling.pyramid import AfterStep, sample_pyramid
from flythrough.sampling.solvers import new_solver

_PROMPTS = 8
"""Embeddings that are kept: of prompts, with the adapter's trigger too, and of blends."""


@dataclass(frozen=True, eq=False)
class Anchors:
    """What the start becomes: ``prefix`` [1,16,1,h,w], the latent of the image (or of a video's
    first frame), and ``past`` [1,16,n,h,w]: the last latent of the image held still for 33 frames,
    or the latents of the start video, every 33 frames encoded on their own."""

    prefix: Tensor
    past: Tensor


@dataclass(frozen=True, eq=False)
class StageConditioning:
    """What the denoiser sees in one pyramid stage."""

    history: History
    target: Tensor
    embedding: Tensor
    camera: bool = False


class HeliosGenerator:
    """Chunks of 33 frames from the native history.

    ``after_step``, which is None but for callers that watch or steer latents, sees those of every
    step and says which to go on with.
    """

    def __init__(self, model: LoadedModel, settings: SamplerSettings) -> None:
        self.model, self.settings = model, settings
        self.pyramid = PyramidConfig.from_dict(model.scheduler)
        self.after_step: AfterStep | None = None
        self._known: tuple[str, Anchors] | None = None
        self._noised = lru_cache(maxsize=1)(self._add_noise)
        # The same object for the same prompt: the fast path would have to compare values, for which
        # the host waits until the device has nothing left to do.
        self._embedded = lru_cache(maxsize=_PROMPTS)(self._embed)
        self._cast: list[tuple[Tensor, Tensor]] = []

    def chunk(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Chunk:
        return self.begin(rollout, request, report).finished()

    def begin(self, rollout: Rollout, request: ChunkRequest, report: Report = silent) -> Unfinished:
        """The chunk as soon as its latents are known; see :class:`generators.unfinished.Ahead`."""
        with torch.inference_mode():
            native = self.native(rollout, request, noisy=self.settings.condition_noise)
            keep = not self.settings.reference
            return self.sampled(
                rollout, request, lambda _stage: native, report, keep_photo=keep, beside=True
            )

    def finish(
        self,
        rollout: Rollout,
        request: ChunkRequest,
        conditioning: Callable[[int], StageConditioning],
        report: Report,
        *,
        keep_photo: bool = True,
    ) -> Chunk:
        """The whole chunk under ``conditioning(stage)``; see :meth:`sampled`."""
        made = self.sampled(rollout, request, conditioning, report, keep_photo=keep_photo)
        return made.finished()

    def sampled(
        self,
        rollout: Rollout,
        request: ChunkRequest,
        conditioning: Callable[[int], StageConditioning],
        report: Report,
        *,
        keep_photo: bool = True,
        beside: bool = False,
    ) -> Unfinished:
        """Sample latents under ``conditioning(stage)``, put the photo in as the video's first
        frame (diffusers' Helios only follows it, Warp-as-History's keeps it), begin to decode.

        ``conditioning`` is asked once as each pyramid stage begins; the history is embedded then
        and serves all steps of the stage. With ``beside`` a GPU with room for it decodes while the
        caller goes on; smooth seams need the frames before, so they are waited for.
        """
        started = time.monotonic()
        latents = self._sample(rollout, request, conditioning, report)
        start = rollout.start
        photo = start is not None and start.video is None
        if keep_photo and request.index == 0 and photo:
            latents[:, :, :1] = self.anchors(rollout).prefix
        kept = latents[0].float().cpu().numpy()
        timings = {"sample": time.monotonic() - started}
        report("decode", 0.9)
        beside = beside and self.settings.seams == "independent"
        beside = beside and latents.is_cuda and self.model.decodes_beside

        def pixels() -> Tensor:
            frames = self.decoded(rollout, latents)[0]
            return (frames.clamp(0, 1) * 255).round().byte().permute(1, 2, 3, 0).contiguous()

        def decode() -> Frames:
            return OnSideStream(pixels, latents) if beside else decoded_now(pixels)

        size = rollout.spec.height, rollout.spec.width
        return unfinished(request, kept, size, timings, decode)

    def decoded(self, rollout: Rollout, latents: Tensor) -> Tensor:
        """Frames [1,3,33,H,W] of the chunk after ``rollout``: decoded on their own, and led over
        from what came before (the last chunk, or the video that is continued) if asked for."""
        video = self.model.codec.decode(latents)
        if self.settings.seams == "independent":
            return video
        before = self._shown(rollout)
        return video if before is None else softened(video, before.to(video))

    def _shown(self, rollout: Rollout) -> Tensor | None:
        """The last two frames [1,3,2,H,W] before the next chunk, where two exist."""
        start = rollout.start
        if rollout.chunks:
            return self._video(rollout.chunks[-1].frames[-2:])
        if start is None or start.video is None or len(start.video) < 2:
            return None
        return self._video(start.video[-2:])

    def native(
        self, rollout: Rollout, request: ChunkRequest, *, noisy: bool = False
    ) -> StageConditioning:
        """The published history layout: anchor frame, then the last 19 latents.

        If ``noisy``, the latents of the start carry noise, one level for an image and one per
        latent for a video, the same in every chunk (Helios, I2V and V2V).
        """
        start = None
        if rollout.start is not None:
            start = self.noisy_anchors(rollout) if noisy else self.anchors(rollout)
        prefix = self.prefix(rollout) if start is None else start.prefix
        anchor = self.settings.anchor
        if anchor == "second" and len(rollout.chunks) > 1:
            prefix = self._tensor(rollout.chunks[1].latents[None, :, :1])
        past = self.past(rollout, start)
        if anchor == "none":
            history = native_history(past, None, keep_first_frame=False)
        else:
            history = native_history(past, prefix)
        return StageConditioning(
            history=history,
            target=target_indices(1, device=self.model.device),
            embedding=self.blended_embedding(rollout, request),
        )

    def past(self, rollout: Rollout, start: Anchors | None = None) -> Tensor:
        """The newest latents [1,16,n,h,w]: finished chunks, before them those of the start.

        Three chunks hold more than the 19 latents that any history reaches; older ones are left
        out. ``start`` takes the place of the clean latents of the start.
        """
        if rollout.start is not None and start is None:
            start = self.anchors(rollout)
        newest = rollout.chunks[-HISTORY_CHUNKS:]
        parts = [self._tensor(chunk.latents)[None] for chunk in newest]
        if start is not None and len(newest) < HISTORY_CHUNKS:
            parts.insert(0, start.past)
        if not parts:
            return self._zeros(rollout, 0)
        return torch.cat(parts, dim=2)

    def prefix(self, rollout: Rollout) -> Tensor:
        """The anchor latent [1,16,1,h,w]: the photo, or frame 0 of a text-started video."""
        if rollout.start is not None:
            return self.anchors(rollout).prefix
        if rollout.chunks:
            return self._tensor(rollout.chunks[0].latents[None, :, :1])
        return self._zeros(rollout, 1)

    def anchors(self, rollout: Rollout) -> Anchors:
        """Latents of the start, encoded once."""
        assert rollout.start is not None
        if self._known is None or self._known[0] != rollout.start.digest():
            self._known = rollout.start.digest(), self._encode_start(rollout.start)
        return self._known[1]

    def noisy_anchors(self, rollout: Rollout) -> Anchors:
        """Latents of the start with a little noise, the same in every chunk."""
        assert rollout.start is not None
        self.anchors(rollout)
        return self._noised(rollout.start.digest(), rollout.spec.seed)

    def embedding(self, prompt: str) -> Tensor:
        """Text embedding [1,L,D] of ``prompt``; those of the newest prompts stay as they are."""
        return self._embedded(prompt)

    def _embed(self, prompt: str) -> Tensor:
        return self.model.prompts.encode([prompt], self.settings.max_sequence_length)

    def blended_embedding(
        self, rollout: Rollout, request: ChunkRequest, trigger: str | None = None
    ) -> Tensor:
        """The request's prompt, or a mixture on the way to it from the prompt before (Helios
        section on interactive prompts): weights run evenly from 0 to 1 over ``blend_chunks``."""
        old, weight = prompt_blend(rollout, request, self.settings.blend_chunks)
        new = self.embedding(with_trigger(request.prompt, trigger))
        if old is None:
            return new
        return torch.lerp(self.embedding(with_trigger(old, trigger)), new, weight)

    def _encode_start(self, start: Start) -> Anchors:
        codec = self.model.codec
        image = self._video(start.image[None])
        if start.video is None:
            return Anchors(prefix=codec.encode(image), past=codec.encode_still(image))
        blocks = [
            codec.encode(self._video(start.video[i : i + CHUNK_FRAMES]))
            for i in range(0, len(start.video), CHUNK_FRAMES)
        ]
        return Anchors(prefix=codec.encode(image), past=torch.cat(blocks, dim=2))

    def _add_noise(self, _digest: str, seed: int) -> Anchors:
        assert self._known is not None
        clean = self._known[1]

        def noisy(latents: Tensor, *purpose: str | int) -> Tensor:
            return with_condition_noise(latents, seeds.generator(seed, *purpose))

        prefix = noisy(clean.prefix, "prefix-noise")
        blocks = clean.past.split(LATENT_FRAMES, dim=2)
        past = [noisy(block, "condition-noise", i) for i, block in enumerate(blocks)]
        return Anchors(prefix=prefix, past=torch.cat(past, dim=2))

    def _video(self, frames: np.ndarray) -> Tensor:
        """uint8 [T,H,W,3] -> [1,3,T,H,W] in [0,1]."""
        return self._tensor(frames).permute(3, 0, 1, 2)[None] / 255

    def _sample(
        self,
        rollout: Rollout,
        request: ChunkRequest,
        conditioning: Callable[[int], StageConditioning],
        report: Report,
    ) -> Tensor:
        settings, spec = self.settings, rollout.spec
        noise = self.start_noise(rollout, request.index)
        solver = new_solver(
            self.model.scheduler,
            self.pyramid,
            (noise.shape[2], noise.shape[3], noise.shape[4]),
            settings.steps,
            amplify=settings.amplify_first_chunk and request.index == 0,
            reference=settings.reference,
        )
        guidance = settings.guidance
        plain = None
        if guidance.active:
            plain = self._as_network(self.embedding(spec.negative_prompt))
        self.model.prompts.release()
        current: tuple[int, StageConditioning, PackedHistory] | None = None
        step = 0

        def denoise(x: Tensor, timestep: Tensor, stage: int) -> Tensor:
            nonlocal current, step
            if current is None or current[0] != stage:
                chosen = self._ready(conditioning(stage))
                packed = None
                if current is not None and current[1].history is chosen.history:
                    packed = current[2]  # an adapter never changes how history is embedded
                if packed is None:
                    packed = self.model.transformer.pack_history(chosen.history)
                current = stage, chosen, packed
                step = 0
            given, history = current[1], current[2]
            velocity = self.denoise(x, timestep, given, history)
            if plain is not None:
                without = self.denoise(x, timestep, replace(given, embedding=plain), history)
                velocity = guidance.combined(velocity, without, stage, step)
            step += 1
            return velocity

        def on_step(done: int, total: int) -> None:
            report("denoise", 0.15 + 0.75 * done / total)

        def fresh_block_noise(stage: int, shape: torch.Size) -> Tensor:
            source = seeds.generator(spec.seed, request.index, "block-noise", stage)
            draw = reference_block_noise if settings.reference else block_noise
            return uploaded(draw(shape, source, self.pyramid.gamma), self.model.device)

        return sample_pyramid(
            denoise,
            noise,
            fresh_block_noise,
            self.pyramid,
            solver=solver,
            on_step=on_step,
            after_step=self.after_step,
        )

    def _ready(self, stage: StageConditioning) -> StageConditioning:
        """The prompt in the network's dtype."""
        return replace(stage, embedding=self._as_network(stage.embedding))

    def _as_network(self, embedding: Tensor) -> Tensor:
        """``embedding`` in the network's dtype, made once for all chunks that have it."""
        kept = [pair for pair in self._cast if pair[0] is embedding]
        others = [pair for pair in self._cast if pair[0] is not embedding]
        if not kept:
            kept = [(embedding, embedding.to(self.model.transformer.dtype))]
        self._cast = [*others[1 - _PROMPTS :], *kept]
        return kept[0][1]

    def denoise(
        self, x: Tensor, timestep: Tensor, stage: StageConditioning, history: PackedHistory
    ) -> Tensor:
        """One call of the network; float32 in and out, the prompt in the network's dtype."""
        velocity = self.model.denoiser(
            x.to(self.model.transformer.dtype),
            timestep,
            stage.embedding,
            indices_hidden_states=stage.target,
            history=history,
        )
        return velocity.float()

    def start_noise(self, rollout: Rollout, index: int) -> Tensor:
        shape = (1, self.model.codec.latent_channels, LATENT_FRAMES, *self.latent_size(rollout))
        source = seeds.generator(rollout.spec.seed, index, "start-noise")
        return uploaded(torch.randn(shape, generator=source), self.model.device)

    def latent_size(self, rollout: Rollout) -> tuple[int, int]:
        factor = self.model.codec.spatial
        return rollout.spec.height // factor, rollout.spec.width // factor

    def _zeros(self, rollout: Rollout, frames: int) -> Tensor:
        channels = self.model.codec.latent_channels
        size = self.latent_size(rollout)
        return torch.zeros(1, channels, frames, *size, device=self.model.device)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return uploaded(array, self.model.device)


def prompt_blend(rollout: Rollout, request: ChunkRequest, span: int) -> tuple[str | None, float]:
    """(old prompt, weight of the new one) of a request; (None, 1) outside a change of prompt.

    With ``span`` M, the first M chunks after a change have weights 0 to 1 in even steps, so that
    the first still has the old prompt alone and the M-th the new one alone (Helios, interactive
    generation). A change within another change starts from the prompt of that change.
    """
    since = 0
    prompts = [chunk.request.prompt for chunk in rollout.chunks]
    while since < len(prompts) and prompts[-1 - since] == request.prompt:
        since += 1
    if since == len(prompts) or since >= span - 1:
        return None, 1.0
    return prompts[-1 - since], since / (span - 1)
