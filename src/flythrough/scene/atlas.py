"""The far background as a panorama around the world's origin (Warp-as-History, background atlas).

Where no mesh is seen, a direction may still be known: the atlas keeps the mean colour that the
keyframes' background has in each direction. It knows no distance, so it is right for what is far
away and for cameras that only turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.geometry.quantile import masked_quantile
from flythrough.geometry.types import Geometry, moved, unproject
from flythrough.scene.surface import Keyframe

_SIZE = (384, 768)
_FAR = 0.65
_MIN_DEPTHS = 128
_CONFIDENT = 0.1
_LEAST_SHARE = 0.1
_ROW_REACH = 3


@dataclass(frozen=True, eq=False)
class Atlas:
    """An equirectangular panorama in world directions.

    Attributes:
        colours: [384,768,3] float32 in [0,1], whole 8-bit levels; row 0 looks up (-y), the middle
            column along +z and columns run towards +x.
        known: [384,768] bool.
    """

    colours: Tensor
    known: Tensor

    def seen_by(
        self, world_from_camera: Tensor, intrinsics: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """What T cameras see of it: colours [T,H,W,3], 0 where unknown, and known [T,H,W] bool.

        Args:
            world_from_camera: [T,4,4]; only the rotation counts.
            intrinsics: [T,3,3] in pixels of ``size`` = (height, width), centres at half-integers.
        """
        texel = _texels(world_from_camera, intrinsics, size)
        known = self.known.flatten()[texel]
        return self.colours.flatten(0, 1)[texel] * known[..., None], known


def background_pixels(geometry: Geometry) -> Tensor:
    """Pixels [H,W] of one frame that count as far background.

    Those without valid confident depth, and the farthest 35 % of the valid depths (when there are
    at least 128); the whole picture if that is less than a tenth of it.
    """
    depth, valid = geometry.depth[0], geometry.valid[0]
    far = ~valid | (geometry.confidence[0] < _CONFIDENT)
    usable = valid & torch.isfinite(depth) & (depth > 0)
    enough = usable.sum() >= _MIN_DEPTHS
    far = far | (enough & usable & (depth >= masked_quantile(depth.double(), usable, _FAR)))
    return far | (far.float().mean() < _LEAST_SHARE)


def background_atlas(keyframes: Sequence[Keyframe]) -> Atlas:
    """The backgrounds of keyframes in one panorama, gaps along rows closed up to three texels."""
    height, width = _SIZE
    device = keyframes[0].image.device
    total = torch.zeros(height * width, 3, dtype=torch.int64, device=device)
    count = torch.zeros(height * width, dtype=torch.int64, device=device)
    for keyframe in keyframes:
        geometry = keyframe.geometry
        far = background_pixels(geometry)
        texel = _texels(geometry.world_from_camera, geometry.intrinsics, geometry.size)[0]
        # Whole numbers add up to the same sum in whatever order threads arrive.
        levels = (keyframe.image.permute(1, 2, 0) * 255).round().long() * far[..., None]
        total.index_add_(0, texel.flatten(), levels.flatten(0, 1))
        count.index_add_(0, texel.flatten(), far.flatten().long())
    mean = (total.double() / count.clamp_min(1)[:, None]).round() / 255
    colours = mean.float().view(height, width, 3)
    return filled_rows(Atlas(colours, (count > 0).view(height, width)))


def filled_rows(atlas: Atlas, reach: int = _ROW_REACH) -> Atlas:
    """Unknown texels take the nearest known one of their row within ``reach``, around the end too;
    of two as near, the left one."""
    colours, known = atlas.colours.clone(), atlas.known.clone()
    for step in range(1, reach + 1):
        for shift in (step, -step):
            there = atlas.known.roll(shift, 1) & ~known
            colours = torch.where(there[..., None], atlas.colours.roll(shift, 1), colours)
            known = known | there
    return Atlas(colours, known)


def _texels(cameras: Tensor, intrinsics: Tensor, size: tuple[int, int]) -> Tensor:
    """Index into the flattened atlas of every pixel's world direction: int64 [T,H,W]."""
    height, width = _SIZE
    rotation = cameras.double().clone()
    rotation[:, :3, 3] = 0
    ones = torch.ones(len(cameras), *size, dtype=torch.float64, device=cameras.device)
    x, y, z = moved(unproject(ones, intrinsics.double()), rotation).unbind(-1)
    yaw, pitch = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
    column = ((yaw + math.pi) * width / (2 * math.pi)).floor().long() % width
    row = ((pitch + math.pi / 2) * height / math.pi).floor().long().clamp(0, height - 1)
    return row * width + column
