"""World clips become encoded training material: latents, captions and, for cameras, warps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.conditioning.warped_history import visibility_to_latent
from flythrough.geometry.types import Geometry, ScaleKind
from flythrough.models.codec import VideoCodec
from flythrough.models.text import PromptEncoder
from flythrough.scene.keyframe_choice import drawn_keyframes
from flythrough.scene.mesh_memory import Keyframe, MeshMemory
from flythrough.scene.settings import WarpSettings
from flythrough.training.latents import CHUNK, EncodedClips, encode_chunks


@dataclass(frozen=True, eq=False)
class WorldVideos:
    """Rendered clips on the device: ``rgb`` [B,3,T,H,W] in [0,1], z-``depth`` [B,T,H,W] metres with
    ``valid`` (not sky), ``world_from_camera`` [B,T,4,4], ``intrinsics`` [B,T,3,3], captions."""

    rgb: Tensor
    depth: Tensor
    valid: Tensor
    world_from_camera: Tensor
    intrinsics: Tensor
    captions: tuple[str, ...]


Videos = Callable[[int, int], WorldVideos]
"""(step, rank) -> clips whose length is a multiple of 33."""


class Refill:
    """(step, rank) -> encoded clips.

    Args:
        videos: the source of clips.
        codec, prompts: frozen codec; tokenizer of the captions (``max_length`` tokens).
        warps: also render every chunk from the clip's own keyframes, as the generator would.
    """

    def __init__(
        self,
        videos: Videos,
        codec: VideoCodec,
        prompts: PromptEncoder,
        max_length: int,
        warps: WarpSettings | None = None,
    ) -> None:
        self.videos, self.codec, self.prompts = videos, codec, prompts
        self.max_length, self.warps = max_length, warps

    @torch.no_grad()
    def __call__(self, step: int, rank: int) -> EncodedClips:
        clips = self.videos(step, rank)
        device = clips.rgb.device
        tokens, mask = self.prompts.tokenize(list(clips.captions), self.max_length)
        still = clips.rgb[:, :, :1]
        encoded = {
            "prefix": self.codec.encode(still),
            "steady": self.codec.encode_still(still),
            "chunks": encode_chunks(self.codec, clips.rgb),
            "tokens": tokens.to(device),
            "mask": mask.to(device),
        }
        if self.warps is not None:
            encoded["warps"], encoded["visible"] = self._warps(clips, self.warps)
        return EncodedClips(**encoded)

    def _warps(self, clips: WorldVideos, settings: WarpSettings) -> tuple[Tensor, Tensor]:
        rendered = [render_warps(clips, i, settings) for i in range(len(clips.rgb))]
        rgb = torch.stack([r for r, _ in rendered])
        visible = torch.stack([v for _, v in rendered])
        latents = encode_chunks(self.codec, rgb)
        count = latents.shape[1]
        size = latents.shape[-2:]
        masks = [
            visibility_to_latent(visible[:, CHUNK * k : CHUNK * (k + 1)], size)
            for k in range(count)
        ]
        return latents, torch.stack(masks, dim=1)


def render_warps(clips: WorldVideos, index: int, settings: WarpSettings) -> tuple[Tensor, Tensor]:
    """Warp video [3,T,H,W] and visibility [T,H,W] of one clip.

    Chunk 0 is rendered from frame 0, chunk k from frame 0, frame 33k-1 and the best of the last
    frames before: the keyframes that the generator draws at that time.
    """
    frames = clips.rgb.shape[2]
    size = (clips.rgb.shape[-2], clips.rgb.shape[-1])
    known: list[Keyframe] = []
    pieces, seen = [], []
    for first in range(0, frames, CHUNK):
        key = max(0, first - 1)
        known.append(Keyframe(clips.rgb[index, :, key], frame_geometry(clips, index, key)))
        window = slice(first, first + CHUNK)
        cameras = clips.world_from_camera[index, window], clips.intrinsics[index, window]
        memory = MeshMemory(drawn_keyframes(known, settings, *cameras, size))
        view = memory.render(*cameras, size, settings, first_is_photo=first == 0)
        pieces.append(view.rgb)
        seen.append(view.visible)
    return torch.cat(pieces).transpose(0, 1), torch.cat(seen)


def frame_geometry(clips: WorldVideos, index: int, frame: int) -> Geometry:
    """Exact geometry of one frame, far sky included as a distant backdrop."""
    depth = clips.depth[index, frame][None].float()
    return Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=torch.ones_like(depth, dtype=torch.bool),
        intrinsics=clips.intrinsics[index, frame][None].float(),
        world_from_camera=clips.world_from_camera[index, frame][None].float(),
        scale=ScaleKind.METRIC,
    )
