"""The texture store: every pattern and picture with its mip levels in one flat integer table.

Colours are looked up at the hit point only. A lookup blends the four nearest texels of the two mip
levels that enclose the pixel's footprint (trilinear filtering, Williams 1983), so far surfaces
fade to their mean instead of shimmering.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from flythrough.errors import InputError
from flythrough.worlds.noise import RESOLUTION
from flythrough.worlds.patterns import SURFACES
from flythrough.worlds.pictures import PICTURES, POSTERS, poster

_BITS = 21  # per channel of a packed texel: 11 of the value, 10 of the blending weights
_MASK = (1 << _BITS) - 1
_FULL, _UNIT = 2047, 1024
LEVELS = RESOLUTION.bit_length()
TEXELS = (4 * RESOLUTION * RESOLUTION - 1) // 3
LAYERS: dict[str, int] = {
    name: index
    for index, name in enumerate(
        [*SURFACES, *PICTURES, *(f"poster {number}" for number in range(POSTERS))]
    )
}
PHOTO = 100_000  # a material with layer PHOTO + r shows photo r (mod N), or poster r without photos


@dataclass(frozen=True, eq=False)
class TextureAtlas:
    """Built-in layers plus optional photographs.

    ``texels`` [layers * TEXELS] int64 holds red | green << 21 | blue << 42 of linear values in
    0..2047 (the free bits take the blending weights);
    ``noise`` [3, RESOLUTION**2] float32 in [0,1] is the unfiltered detail noise;
    ``photos`` counts the photographs that follow the built-in layers.
    """

    texels: Tensor
    noise: Tensor
    photos: int

    def to(self, device: str | torch.device) -> TextureAtlas:
        """The same atlas on ``device``."""
        return TextureAtlas(self.texels.to(device), self.noise.to(device), self.photos)


def _pyramid(image: Tensor) -> Tensor:
    """[3,R,R] in [0,1] -> [TEXELS] int64, finest level first."""
    levels = []
    while True:
        parts = (image.clamp(0, 1) * _FULL + 0.5).to(torch.int64)
        levels.append((parts[0] | parts[1] << _BITS | parts[2] << 2 * _BITS).reshape(-1))
        if image.shape[-1] == 1:
            return torch.cat(levels)
        image = functional.avg_pool2d(image[None], 2)[0]


@lru_cache(maxsize=1)
def _built_in() -> tuple[Tensor, Tensor]:
    painters = [*SURFACES.values(), *PICTURES.values()]
    images = [paint() for paint in painters] + [poster(number) for number in range(POSTERS)]
    small = [functional.avg_pool2d(image[None], 2)[0] for image in images]
    return torch.cat([_pyramid(image) for image in small]), small[0].reshape(3, -1).contiguous()


def texture_atlas(photos: Tensor | None = None, device: str | torch.device = "cpu") -> TextureAtlas:
    """The built-in textures, with ``photos`` [N,3,h,w] (sRGB in [0,1]) added if given.

    Photos are resized to the texture resolution. Raises InputError for another shape.
    """
    texels, noise = _built_in()
    count = 0
    if photos is not None:
        if photos.ndim != 4 or photos.shape[1] != 3 or photos.shape[0] == 0:
            raise InputError(
                f"photos have shape {tuple(photos.shape)}, but [N,3,height,width] with N >= 1 is "
                "needed; stack the pictures along a first axis."
            )
        size = (RESOLUTION, RESOLUTION)
        fitted = functional.interpolate(
            photos.float().cpu(), size=size, mode="bilinear", antialias=True
        )
        texels = torch.cat([texels, *(_pyramid(photo.clamp(0, 1) ** 2) for photo in fitted)])
        count = int(photos.shape[0])
    return TextureAtlas(texels, noise, count).to(device)


def _corners(
    layer: Tensor, level: Tensor, u: Tensor, v: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Texel numbers and bilinear weights of the four nearest texels of one mip level."""
    width = torch.full_like(level, RESOLUTION).bitwise_right_shift_(level)
    scale = width.to(torch.float32)
    x = (u * scale).sub_(0.5)
    y = (v * scale).sub_(0.5)
    x0, y0 = x.floor(), y.floor()
    fx, fy = x.sub_(x0), y.sub_(y0)
    # levels before this one hold 4/3 (R^2 - width^2) texels; the shift by 2 bits a level is exact
    before = (RESOLUTION * RESOLUTION - width * width).mul_(4).div_(3, rounding_mode="floor")
    first = before.add_(layer * TEXELS)
    wrap = width - 1
    left, top = x0.to(torch.int32), y0.to(torch.int32)
    right, bottom = (left + 1).bitwise_and_(wrap), (top + 1).bitwise_and_(wrap)
    left.bitwise_and_(wrap)
    upper = top.bitwise_and_(wrap).mul_(width).add_(first)
    lower = bottom.mul_(width).add_(first)
    across = fx * fy
    weights = (1 - fx - fy + across, fx - across, fy - across, across)
    return (upper + left, upper + right, lower + left, lower + right), weights


def sample(
    atlas: TextureAtlas, layer: Tensor, u: Tensor, v: Tensor, lod: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Trilinear weights in [0,1] at (u, v) of ``layer``.

    ``layer`` int32, ``u``/``v`` float32 in tiles (they wrap), ``lod`` float32 = log2 of the pixel's
    footprint in texels of the finest level; all of one shape. The three channels travel in one
    integer: eight products and sums blend them all, and memory is read once.
    """
    lod = lod.clamp(0, LEVELS - 1.001)
    low = lod.floor()
    between = lod - low
    level = low.to(torch.int32)
    # float32 keeps too few fraction bits far from the origin: wrap to the tile first
    u, v = u - u.floor(), v - v.floor()
    left = torch.full(u.shape, _UNIT, dtype=torch.int64, device=u.device)
    total = torch.zeros_like(left)
    for step, share in ((0, (1 - between) * _UNIT), (1, between * _UNIT)):
        numbers, weights = _corners(layer, level + step, u, v)
        for corner in range(4):
            texel = torch.index_select(atlas.texels, 0, numbers[corner].reshape(-1)).view(u.shape)
            if step == 1 and corner == 3:
                weight = left.clamp_(min=0)  # the shares add up to the unit in spite of rounding
            else:
                weight = (weights[corner] * share).to(torch.int64)
                left.sub_(weight)
            total.addcmul_(texel, weight)
    red, green, blue = (
        ((total >> (_BITS * channel)) & _MASK).to(torch.float32).mul_(1 / (_FULL * _UNIT))
        for channel in range(3)
    )
    return red, green, blue


def sample_noise(atlas: TextureAtlas, channel: int, u: Tensor, v: Tensor) -> Tensor:
    """Bilinear detail noise in [0,1] at the finest level only; ``u``, ``v`` in tiles."""
    x = (u - u.floor()) * RESOLUTION - 0.5
    y = (v - v.floor()) * RESOLUTION - 0.5
    x0, y0 = x.floor(), y.floor()
    fx, fy = x - x0, y - y0
    left, top = x0.to(torch.int32), y0.to(torch.int32)
    wrap = RESOLUTION - 1
    right, bottom = (left + 1) & wrap, ((top + 1) & wrap) * RESOLUTION
    left, top = left & wrap, (top & wrap) * RESOLUTION
    table = atlas.noise[channel]

    def at(index: Tensor) -> Tensor:
        return torch.index_select(table, 0, index.reshape(-1)).view(index.shape)

    upper = torch.lerp(at(top + left), at(top + right), fx)
    lower = torch.lerp(at(bottom + left), at(bottom + right), fx)
    return torch.lerp(upper, lower, fy)
