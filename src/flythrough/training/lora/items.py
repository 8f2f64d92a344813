"""Training items: what a drawn clip shows, rendered and encoded as at inference, kept on disk."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from flythrough.conditioning.visibility import visibility_to_latent
from flythrough.disk import replacing
from flythrough.generators.joint_keyframes import published_rendering
from flythrough.geometry.types import Geometry
from flythrough.models.wan_codec import Codec
from flythrough.scene.keyframe_choice import drawn_keyframes
from flythrough.scene.rendered import RenderedView
from flythrough.scene.settings import WarpSettings
from flythrough.scene.splat_memory import scene_memory
from flythrough.scene.surface import Keyframe
from flythrough.training.clip_sampling import WINDOW, Clip
from flythrough.training.lora.geometry import PlayedClip

_PAST_WINDOWS = 2
"""Windows before a later clip that its history can hold: 19 latents are two chunks and a bit."""


@dataclass(frozen=True, eq=False)
class RenderedItem:
    """Pixels of an item.

    Attributes:
        target: uint8 [33,H,W,3], the frames to be made; source: [H,W,3], the one before them (of
            a first clip, its first).
        warp: [33,3,H,W] in [0,1]; visible: [33,H,W] in [0,1].
        anchor: uint8 [H,W,3], the frame the video began with; past: uint8 [33 k,H,W,3], the
            frames between it and the target, k in 0..2.
    """

    target: np.ndarray
    source: np.ndarray
    warp: Tensor
    visible: Tensor
    anchor: np.ndarray
    past: np.ndarray


@dataclass(frozen=True, eq=False)
class EncodedItem:
    """Latents of an item, float32: ``target`` and ``warp`` [1,C,9,h,w], ``visible`` [1,9,h,w],
    ``prefix`` [1,C,1,h,w] and ``past`` [1,C,1+9k,h,w], the anchor held still in front."""

    target: Tensor
    warp: Tensor
    visible: Tensor
    prefix: Tensor
    past: Tensor

    def to(self, device: torch.device) -> EncodedItem:
        """The same on another device."""
        return EncodedItem(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def render_item(
    played: PlayedClip, clip: Clip, settings: WarpSettings, *, reference: bool = False
) -> RenderedItem:
    """Draw the warp of ``clip`` from its keyframes, by the functions of the scene memory.

    The boundary frame of a later clip is dropped after rendering, video and mask together. Its past
    is the video before it as far as whole chunks of it exist; with ``reference``, and where there
    are none, one frame held still.
    """
    view = _view(played, clip, settings, reference)
    if clip.kind == "later":
        view = RenderedView(rgb=view.rgb[1:], depth=view.depth[1:], visible=view.visible[1:])
    warp, visible = view.rgb, view.visible
    if reference:
        warp = (warp.clamp(0, 1) * 255).round() / 255
    chunks = 0 if reference else min(_PAST_WINDOWS, clip.start // WINDOW)
    chunks = chunks if clip.kind == "later" else 0
    begin = clip.start - WINDOW * chunks
    return RenderedItem(
        target=played.images[clip.start : clip.start + WINDOW],
        source=played.images[clip.condition],
        warp=warp,
        visible=visible,
        anchor=played.images[begin if chunks else clip.condition],
        past=played.images[begin : clip.start],
    )


def encode_item(codec: Codec, item: RenderedItem, device: torch.device) -> EncodedItem:
    """Every part encoded on its own, as at inference."""

    def latents(frames: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(device, torch.float32) / 255
        return codec.encode(pixels.permute(3, 0, 1, 2)[None])

    still = torch.from_numpy(np.ascontiguousarray(item.anchor)).to(device, torch.float32) / 255
    image = still.permute(2, 0, 1)[None, :, None]
    windows = [latents(item.past[n : n + WINDOW]) for n in range(0, len(item.past), WINDOW)]
    warp = codec.encode(item.warp.to(device).transpose(0, 1)[None])
    return EncodedItem(
        target=latents(item.target),
        warp=warp,
        visible=visibility_to_latent(item.visible[None].to(device), warp.shape[-2:]),
        prefix=codec.encode(image),
        past=torch.cat([codec.encode_still(image), *windows], dim=2),
    )


def write_item(file: Path, item: EncodedItem) -> None:
    """Keep an item; the file appears whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f.name: getattr(item, f.name).float().cpu().contiguous() for f in fields(item)}
    with replacing(file) as partial:
        save_file(tensors, partial)


def read_item(file: Path) -> EncodedItem | None:
    """A kept item, or None where there is none that can be read."""
    try:
        stored = load_file(file)
        return EncodedItem(**{f.name: stored[f.name] for f in fields(EncodedItem)})
    except (OSError, SafetensorError, KeyError):
        return None


def item_bytes(size: tuple[int, int], channels: int, spatial: int) -> int:
    """Disk that an item takes at most, without the past of later clips."""
    return 4 * (size[0] // spatial) * (size[1] // spatial) * (channels * 20 + 9)


def _view(played: PlayedClip, clip: Clip, settings: WarpSettings, reference: bool) -> RenderedView:
    geometry = played.geometry
    images = played.pictures(list(clip.keyframes))
    cameras = geometry.world_from_camera[list(clip.cameras)]
    matrices = geometry.intrinsics[list(clip.cameras)]
    if reference:
        return published_rendering(images, _frames(geometry, clip.keyframes), cameras, settings)
    known = [
        Keyframe(image, geometry.frame(n)) for image, n in zip(images, clip.keyframes, strict=True)
    ]
    drawn = drawn_keyframes(known, settings, cameras, matrices, geometry.size)
    return scene_memory(drawn, settings).render(
        cameras, matrices, geometry.size, settings, first_is_photo=clip.kind == "first"
    )


def _frames(geometry: Geometry, chosen: tuple[int, ...]) -> Geometry:
    index = torch.tensor(chosen, device=geometry.depth.device)
    tensors = {k: v[index] for k, v in vars(geometry).items() if isinstance(v, Tensor)}
    return Geometry(**tensors, scale=geometry.scale)
