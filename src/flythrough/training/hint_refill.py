"""Clips with exact geometry become training material of ST-Diff: hints rendered from one frame."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor
from torch.nn import functional

from flythrough import seeds
from flythrough.conditioning.hints import Hint, encoded_hint
from flythrough.conditioning.noise_field import FieldSettings
from flythrough.geometry.types import Geometry
from flythrough.models.text import PromptEncoder
from flythrough.models.wan_codec import Codec
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe
from flythrough.training.refill import Videos, WorldVideos, frame_geometry
from flythrough.training.st_diff import EncodedHints


@dataclass(frozen=True, kw_only=True)
class HintDraw:
    """What is varied from clip to clip.

    Attributes:
        overlaps: frames of history, one of them drawn for each clip.
        from_history: share of clips that are rendered from the newest frame of their history, as
            the sampler does; the rest from any frame.
        disturbed: share of clips whose depth is off, as estimates are: by ``scale`` as a whole and
            by ``waves`` in soft spots (standard deviations of the logarithm).
        least_seen: clips of which less is seen give their places to those of which more is, or all
            of them to the best one.
    """

    overlaps: tuple[int, ...] = (1, 5)
    from_history: float = 0.7
    disturbed: float = 0.5
    scale: float = 0.05
    waves: float = 0.03
    least_seen: float = 0.2


class HintRefill:
    """(step, rank) -> encoded clips, as many as ``videos`` gives, a function of (seed, step, rank).

    Args:
        videos: clips of 4k + 1 frames with exact depth and cameras.
        codec, prompts: frozen codec and text encoder (``max_length`` tokens).
        warps: how hints are rendered; ``noise_field``: how they become a mask.
    """

    def __init__(
        self,
        videos: Videos,
        codec: Codec,
        prompts: PromptEncoder,
        max_length: int,
        warps: WarpSettings,
        noise_field: FieldSettings,
        seed: int,
        draw: HintDraw | None = None,
    ) -> None:
        self.videos, self.codec, self.prompts = videos, codec, prompts
        self.max_length, self.warps, self.noise_field = max_length, warps, noise_field
        self.seed, self.draw = seed, draw or HintDraw()

    @torch.no_grad()
    def __call__(self, step: int, rank: int) -> EncodedHints:
        clips = self.videos(step, rank)
        source = seeds.generator(self.seed, "hints", step, rank)
        made = [self.hint(clips, index, source) for index in range(len(clips.rgb))]
        seen = torch.stack([hint.valid.float().mean() for hint in made])
        chosen = places_filled(seen, self.draw.least_seen)
        clean = {i: self.codec.encode(clips.rgb[i : i + 1]) for i in sorted(set(chosen))}
        hints = [made[index] for index in chosen]
        return EncodedHints(
            clean=torch.cat([clean[i] for i in chosen]),
            hint=torch.cat([hint.latents for hint in hints]),
            valid=torch.cat([hint.valid for hint in hints]),
            context=torch.tensor([hint.context for hint in hints], device=clips.rgb.device),
            text=self.text([clips.captions[i] for i in chosen]),
        )

    def text(self, prompts: list[str]) -> Tensor:
        """Features [B,T,D]; not remembered, since captions of worlds hardly come twice."""
        return self.prompts.embed(*self.prompts.tokenize(prompts, self.max_length))

    def hint(self, clips: WorldVideos, index: int, source: torch.Generator) -> Hint:
        """History and rendering of one clip, as the generator encodes them."""
        draw, frames = self.draw, clips.rgb.shape[2]
        overlap = draw.overlaps[int(torch.randint(len(draw.overlaps), (1,), generator=source))]
        anywhere = int(torch.randint(frames, (1,), generator=source))
        chances = torch.rand(2, generator=source)
        frame = overlap - 1 if chances[0] < draw.from_history else anywhere
        geometry = frame_geometry(clips, index, frame)
        if chances[1] < draw.disturbed:
            geometry = disturbed(geometry, source, draw)
        memory = scene_memory((Keyframe(clips.rgb[index, :, frame], geometry),), self.warps)
        view = memory.render(
            clips.world_from_camera[index, overlap:],
            clips.intrinsics[index, overlap:],
            (clips.rgb.shape[-2], clips.rgb.shape[-1]),
            self.warps,
        )
        history = clips.rgb[index : index + 1, :, :overlap]
        rendered = view.rgb.transpose(0, 1)[None]
        return encoded_hint(self.codec, history, rendered, view.visible[None], self.noise_field)


def places_filled(seen: Tensor, least: float) -> list[int]:
    """Which clip stands in each place, from the share [N] that is ``seen`` of every clip: itself
    where it is enough, else one of the others in turn (stores need refills of one length)."""
    kept = (seen >= least).nonzero().flatten().tolist() or [int(seen.argmax())]
    instead = cycle(kept)
    return [place if place in kept else next(instead) for place in range(len(seen))]


def disturbed(geometry: Geometry, source: torch.Generator, draw: HintDraw) -> Geometry:
    """Depth that is off by a factor as a whole, and by smooth waves."""
    whole = torch.randn(1, generator=source) * draw.scale
    spots = torch.randn(1, 1, 6, 10, generator=source) * draw.waves
    waves = functional.interpolate(spots, geometry.size, mode="bicubic")[:, 0]
    return geometry.with_depth_scaled((whole + waves).exp().to(geometry.depth))
