"""Colour of hit points: material, lamp or sun with shadow, sky light, contact darkening, fog, sky.

One function shades any group of samples, whole frames and the extra edge samples alike. All
values are linear light until the last step, which rolls highlights off and takes the square root.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.worlds import world as w
from flythrough.worlds.noise import RESOLUTION
from flythrough.worlds.shadows import ShadowMaps, lit_share, mover_balls, past_ball
from flythrough.worlds.shapes import Triple, describe
from flythrough.worlds.tables import FrameTables
from flythrough.worlds.textures import (
    LAYERS,
    PHOTO,
    TextureAtlas,
    sample,
    sample_noise,
)
from flythrough.worlds.world import PRIMITIVES, WorldBatch

_DETAIL = 1.7  # tiles a metre of the finest noise
_BROAD = 0.071  # tiles a metre of the broadest


@dataclass(frozen=True, eq=False)
class ShadingTables:
    """Columns to gather: ``primitive`` [C,F*K], ``material`` [P,B*M] and ``frame`` [D,F]."""

    primitive: Tensor
    material: Tensor
    frame: Tensor
    shadows: ShadowMaps
    atlas: TextureAtlas


@dataclass(frozen=True, eq=False)
class Shaded:
    """``rgb`` in [0,1], world ``normal`` and ``face`` code (primitive * 4 + face) of samples."""

    rgb: Triple
    normal: Triple
    face: Tensor


def _resolved_materials(worlds: WorldBatch, atlas: TextureAtlas) -> Tensor:
    table = worlds.material.reshape(-1, w.MATERIAL_FIELDS).T.clone()
    layer = table[0]
    choice = layer - PHOTO
    built_in = len(LAYERS)
    poster = LAYERS["poster 0"]
    if atlas.photos:
        shown = built_in + torch.remainder(choice, atlas.photos)
    else:
        shown = poster + torch.remainder(choice, built_in - poster)
    table[0] = torch.where(choice >= 0, shown, layer)
    return table.contiguous()


def shading_tables(
    worlds: WorldBatch,
    tables: FrameTables,
    times: Tensor,
    shadows: ShadowMaps,
    atlas: TextureAtlas,
) -> ShadingTables:
    """Gatherable columns for ``tables``' frames of ``worlds`` at ``times`` [B,T]."""
    frames = tables.frames
    per_frame = tables.world

    def rows(values: Tensor) -> Tensor:
        return values.index_select(0, per_frame).reshape(frames * PRIMITIVES, -1).T

    offset = (torch.arange(len(worlds), device=worlds.device) * w.MATERIALS)[:, None, None]
    primitive = torch.cat(
        (
            tables.direction.reshape(-1, 9).T,
            tables.origin.reshape(-1, 3).T,
            tables.normal.reshape(-1, 9).T,
            rows(worlds.half),
            rows(worlds.shape.to(torch.float32)),
            rows(worlds.contact),
            rows((worlds.surface + offset).to(torch.float32)),
        )
    )
    frame = torch.cat(
        (
            tables.ray.reshape(-1, 9).T,
            tables.centre.T,
            tables.pixel_angle[None],
            worlds.environment.index_select(0, per_frame).T,
            shadows.light_from_world.index_select(0, per_frame).reshape(frames, 12).T,
            per_frame.to(torch.float32)[None],
            mover_balls(worlds, times).reshape(frames, -1).T,
        )
    )
    material = _resolved_materials(worlds, atlas)
    return ShadingTables(primitive.contiguous(), material, frame.contiguous(), shadows, atlas)


def _map3(m: Tensor, a: Tensor | float, b: Tensor | float, c: Tensor | float) -> Triple:
    """Rows of nine matrix entries times a vector."""
    return (
        m[0] * a + m[1] * b + m[2] * c,
        m[3] * a + m[4] * b + m[5] * c,
        m[6] * a + m[7] * b + m[8] * c,
    )


@dataclass(frozen=True, eq=False)
class _Lookup:
    """Where to read the texture: ``layer`` int32, ``u``, ``v`` in tiles, ``lod``."""

    layer: Tensor
    u: Tensor
    v: Tensor
    lod: Tensor

    def where(self, choose: Tensor, other: _Lookup) -> _Lookup:
        """``other`` where ``choose``, else this."""
        return _Lookup(
            torch.where(choose, other.layer, self.layer),
            torch.where(choose, other.u, self.u),
            torch.where(choose, other.v, self.v),
            torch.where(choose, other.lod, self.lod),
        )


def _cloud_lookup(env: Tensor, d: Triple, length: Tensor, up: Tensor) -> _Lookup:
    reach = length / (up + 0.12) * env[w.CLOUD_SCALE]
    layer = torch.full(up.shape, LAYERS["clouds"], dtype=torch.int32, device=up.device)
    return _Lookup(layer, d[0] * reach, d[2] * reach, 2.8 - 1.5 * up)


def _sky(env: Tensor, up: Tensor, weights: Triple) -> Triple:
    cover = weights[0] * env[w.CLOUD] * (up * 6).clamp(max=1)
    height = up.sqrt()
    colours = []
    for i in range(3):
        low, high = env[w.HORIZON][i], env[w.ZENITH][i]
        clear = low + (high - low) * height
        white = (0.82 + 0.35 * weights[1] - 0.03 * i * (1 - weights[1])) * 1.1
        colours.append(torch.lerp(clear, white, cover))
    return colours[0], colours[1], colours[2]


def _surface_lookup(material: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> _Lookup:
    texels = footprint * torch.maximum(material[1].abs(), material[2].abs()) * RESOLUTION
    return _Lookup(
        material[0].to(torch.int32),
        torch.addcmul(material[3], u, material[1]),
        torch.addcmul(material[4], v, material[2]),
        torch.log2(texels.clamp(min=1e-6)),
    )


def _albedo(
    material: Tensor, weights: Triple, u: Tensor, v: Tensor, footprint: Tensor, point: Triple,
    atlas: TextureAtlas,
) -> Triple:  # fmt: skip
    fine = sample_noise(atlas, 0, u * _DETAIL, v * _DETAIL)
    broad = sample_noise(atlas, 1, point[0] * _BROAD, (point[2] + 0.7 * point[1]) * _BROAD)
    fade = (1.4 - footprint * (_DETAIL * RESOLUTION * 0.5)).clamp(0, 1)
    gain = 1 + material[14] * ((fine - 0.5) * fade * 0.7 + (broad - 0.5) * 0.9)
    out = []
    for i in range(3):
        mixed = weights[0] * material[5 + i]
        mixed.addcmul_(weights[1], material[8 + i]).addcmul_(weights[2], material[11 + i])
        out.append(mixed.mul_(gain))
    return out[0], out[1], out[2]


def shade(
    tables: ShadingTables, frame: Tensor, depth: Tensor, primitive: Tensor, u: Tensor, v: Tensor
) -> Shaded:
    """Shade samples [G,n]: ``frame`` [G] int64, ``depth`` (inf: sky), ``primitive`` (-1: sky).

    Pixel positions ``u``, ``v`` broadcast against the rest.
    """
    shape = depth.shape
    sky = primitive < 0
    column = (frame[:, None] * PRIMITIVES + primitive.clamp(min=0)).reshape(-1)
    p = tables.primitive.index_select(1, column).view(-1, *shape)
    f = tables.frame.index_select(1, frame)[:, :, None]
    env = f[13 : 13 + w.ENVIRONMENT]
    t = torch.where(sky, 1.0, depth)

    local = _map3(p, u, v, 1.0)
    q = tuple(torch.addcmul(p[9 + i], local[i], t) for i in range(3))
    half = (p[21], p[22], p[23])
    gradient, tu, tv, face, base = describe(p[24], (q[0], q[1], q[2]), half)
    normal = _map3(p[12:21], *gradient)
    size = torch.rsqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    n = (normal[0] * size, normal[1] * size, normal[2] * size)
    d = _map3(f, u, v, 1.0)
    x = tuple(torch.addcmul(f[9 + i], d[i], t) for i in range(3))
    point = (x[0], x[1], x[2])

    chosen = torch.where(face < 1.5, torch.where(face < 0.5, p[26], p[27]), p[28])
    chosen = torch.where(face > 2.5, p[29], chosen)
    material = tables.material.index_select(1, chosen.reshape(-1).to(torch.int32))
    material = material.view(-1, *shape)
    reach = torch.rsqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2)
    facing = (d[0] * n[0] + d[1] * n[1] + d[2] * n[2]).abs() * reach
    footprint = t * f[12] * torch.rsqrt(facing.clamp(min=0.05))
    up = (-d[1] * reach).clamp(min=0).expand(shape)
    surface = _surface_lookup(material, tu, tv, footprint)
    lookup = surface.where(sky, _cloud_lookup(env, d, reach, up))
    weights = sample(tables.atlas, lookup.layer, lookup.u, lookup.v, lookup.lod)
    albedo = _albedo(material, weights, tu, tv, footprint, point, tables.atlas)

    light = _light(tables, f, env, point, n, p[25], base)
    sky_colour = _sky(env, up, weights)
    fog = 1 - torch.exp(-t * env[w.FOG])
    out = []
    for i in range(3):
        lit = light[i] + material[15] * (1 - light[i])
        seen = albedo[i].mul_(lit)
        seen.add_((env[w.HORIZON][i] - seen).mul_(fog))
        seen = torch.where(sky, sky_colour[i], seen).mul_(env[w.EXPOSURE])
        rolled = (seen * (1 + 0.16 * seen)).div_(1 + 0.55 * seen)
        out.append(rolled.clamp_(0, 1).sqrt_())
    n = (n[0].masked_fill_(sky, 0), n[1].masked_fill_(sky, 0), n[2].masked_fill_(sky, 0))
    return Shaded((out[0], out[1], out[2]), n, primitive.to(torch.float32) * 4 + face)


def _light(
    tables: ShadingTables,
    f: Tensor,
    env: Tensor,
    point: Triple,
    n: Triple,
    contact: Tensor,
    base: Tensor,
) -> Triple:
    to = tuple(env[w.LIGHT][i] - point[i] for i in range(3))
    square = to[0] ** 2 + to[1] ** 2 + to[2] ** 2
    inverse = torch.rsqrt(square)
    ray = (to[0] * inverse, to[1] * inverse, to[2] * inverse)
    cosine = ray[0] * n[0] + ray[1] * n[1] + ray[2] * n[2]
    start = 13 + w.ENVIRONMENT
    share = lit_share(tables.shadows, f[start : start + 12], f[start + 12], point, n)
    for ball in range(w.MOVERS):
        first = start + 13 + 4 * ball
        share = share * past_ball(f[first : first + 4], point, ray)
    direct = cosine.clamp(min=0) * share / (1 + square * env[w.LIGHT_FALLOFF])
    open_sky = 0.5 - 0.5 * n[1]
    closeness = 1 - contact * torch.exp(base * -3.5)
    # a little light from the side keeps unlit faces apart
    slant = 1 + 0.10 * n[0] - 0.06 * n[2]
    out = []
    for i in range(3):
        ambient = torch.lerp(
            env[w.AMBIENT_DOWN][i].expand_as(open_sky),
            env[w.AMBIENT_UP][i].expand_as(open_sky),
            open_sky,
        )
        out.append((ambient * slant + direct * env[w.LIGHT_COLOUR][i]) * closeness)
    return out[0], out[1], out[2]
