"""Shadow maps: the still primitives seen from the sun or lamp, one depth picture a world.

The same caster fills them (Williams 1978). A far sun is a lamp a long way off with a narrow field
of view. Movers are left out, so a map is valid for all times; each casts the soft shadow of a ball
instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flythrough.worlds import world as w
from flythrough.worlds.casting import cast_tiles, untile
from flythrough.worlds.motion import mover_poses, product, rigid_inverse
from flythrough.worlds.shapes import Triple
from flythrough.worlds.tables import frame_tables
from flythrough.worlds.world import WorldBatch

SIDE = 512


@dataclass(frozen=True, eq=False)
class ShadowMaps:
    """``depth`` [B * SIDE**2] float32, all maps in a row; ``light_from_world`` [B,3,4] float32
    whose rows give (pixel u * z, pixel v * z, z)."""

    depth: Tensor
    light_from_world: Tensor


def _light_cameras(worlds: WorldBatch) -> tuple[Tensor, Tensor]:
    env = worlds.environment.to(torch.float64)
    position = env[:, w.LIGHT]
    forward = torch.nn.functional.normalize(env[:, w.SHADOW_TARGET] - position, dim=-1)
    hint = torch.tensor((0.36, 0.0, 0.93), dtype=torch.float64, device=env.device).expand_as(
        forward
    )
    right = torch.nn.functional.normalize(torch.cross(hint, forward, dim=-1), dim=-1)
    down = torch.cross(forward, right, dim=-1)
    pose = torch.stack((right, down, forward, position), -1)
    focal = 0.5 * SIDE / env[:, w.SHADOW_TANGENT]
    zero, middle = torch.zeros_like(focal), torch.full_like(focal, 0.5 * SIDE)
    rows = (focal, zero, middle, zero, focal, middle, zero, zero, zero + 1)
    return pose, torch.stack(rows, -1).unflatten(-1, (3, 3))


def shadow_maps(worlds: WorldBatch) -> ShadowMaps:
    """Cast every world once from its light, movers left out."""
    still = replace(worlds, shape=torch.where(worlds.mover >= 0, -1, worlds.shape))
    pose, intrinsics = _light_cameras(worlds)
    times = torch.zeros(len(worlds), 1, dtype=torch.float64, device=worlds.device)
    tables = frame_tables(still, pose[:, None], intrinsics[:, None], times, (SIDE, SIDE))
    depth, _ = cast_tiles(tables)
    inverse = rigid_inverse(pose)
    u = intrinsics[:, 0, 0, None] * inverse[:, 0] + 0.5 * SIDE * inverse[:, 2]
    v = intrinsics[:, 1, 1, None] * inverse[:, 1] + 0.5 * SIDE * inverse[:, 2]
    rows = torch.stack((u, v, inverse[:, 2]), 1)
    image = untile(depth, (SIDE, SIDE))
    return ShadowMaps(image.reshape(-1).contiguous(), rows.to(torch.float32))


def mover_balls(worlds: WorldBatch, times: Tensor) -> Tensor:
    """Ball that stands for each mover, (x, y, z, radius) in metres: [B,T,MOVERS,4] float32.

    Centre and size are those of the mover's largest primitive; the radius is 0 without one.
    """
    numbers = torch.arange(w.MOVERS, device=worlds.device)[:, None]
    own = (worlds.mover[:, None] == numbers) & (worlds.shape[:, None] >= 0)
    volume = worlds.half.prod(-1)[:, None].expand(own.shape)
    size, largest = torch.where(own, volume, 0.0).max(-1)
    rest = torch.gather(worlds.pose[..., 3], 1, largest[..., None].expand(-1, -1, 3))
    moved = mover_poses(worlds, times)
    centre = product(moved[..., :3], rest[:, None, ..., None])[..., 0] + moved[..., 3]
    radius = (size ** (1 / 3))[:, None, :, None].expand(-1, times.shape[1], -1, -1)
    return torch.cat((centre.to(torch.float32), radius), -1)


def past_ball(ball: Tensor, point: Triple, ray: Triple) -> Tensor:
    """Share of light that passes ``ball`` (rows x, y, z, radius) on its way along unit ``ray``."""
    to = (ball[0] - point[0], ball[1] - point[1], ball[2] - point[2])
    along = to[0] * ray[0] + to[1] * ray[1] + to[2] * ray[2]
    aside = (to[0] ** 2 + to[1] ** 2 + to[2] ** 2 - along * along).clamp(min=0).sqrt()
    cover = ((1.15 * ball[3] - aside) / (0.35 * ball[3] + 1e-6)).clamp(0, 1)
    return 1 - cover * (along > 0.05 * ball[3])


def lit_share(maps: ShadowMaps, m: Tensor, world: Tensor, point: Triple, n: Triple) -> Tensor:
    """Share of light in [0,1] that reaches ``point`` with normal ``n``.

    ``m`` [12,...] are the rows of light_from_world, ``world`` the map's index (float32). Blends
    nine comparisons by a quadratic spline (smooth penumbra); outside the map everything is lit.
    """
    # start a little off the surface, by about one texel, so that it does not shade itself
    z0 = m[8] * point[0] + m[9] * point[1] + m[10] * point[2] + m[11]
    focal = torch.sqrt(m[0] ** 2 + m[1] ** 2 + m[2] ** 2 - (0.5 * SIDE) ** 2)
    lift = z0 / focal * 2.2
    px, py, pz = point[0] + n[0] * lift, point[1] + n[1] * lift, point[2] + n[2] * lift
    z = m[8] * px + m[9] * py + m[10] * pz + m[11]
    inverse = 1 / z.clamp(min=1e-3)
    u = (m[0] * px + m[1] * py + m[2] * pz + m[3]) * inverse
    v = (m[4] * px + m[5] * py + m[6] * pz + m[7]) * inverse
    inside = (u > 1.5) & (v > 1.5) & (u < SIDE - 1.5) & (v < SIDE - 1.5) & (z > 1e-3)
    u, v = torch.where(inside, u, 2.0), torch.where(inside, v, 2.0)
    u0, v0 = u.floor(), v.floor()
    first = (world * SIDE).to(torch.int32) * SIDE + (v0 * SIDE + u0).to(torch.int32)
    limit = z - lift * 0.5
    across, down = _spline(u - u0), _spline(v - v0)

    def open_at(offset: int) -> Tensor:
        found = torch.index_select(maps.depth, 0, (first + offset).reshape(-1)).view(z.shape)
        return (found >= limit).to(torch.float32)

    share = torch.zeros_like(z)
    for row in (-1, 0, 1):
        line = open_at(row * SIDE - 1) * across[0]
        line.addcmul_(open_at(row * SIDE), across[1]).addcmul_(open_at(row * SIDE + 1), across[2])
        share.addcmul_(line, down[row + 1])
    return torch.where(inside, share, 1.0)


def _spline(f: Tensor) -> Triple:
    """Quadratic B-spline weights of the texels before, at and after a position ``f`` in [0,1)."""
    after = 0.5 * f * f
    before = 0.5 * (1 - f) * (1 - f)
    return before, 1 - before - after, after
