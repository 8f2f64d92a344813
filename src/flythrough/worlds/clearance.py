"""How far a point is from every surface: keeps cameras out of walls and objects."""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.worlds.motion import object_poses, rigid_inverse
from flythrough.worlds.world import CONE, CYLINDER, PLANE, ROOM, SPHERE, WorldBatch


def clearance(worlds: WorldBatch, points: Tensor, times: Tensor) -> Tensor:
    """Distance in metres from ``points`` [B,T,3] (world frame) to the nearest surface, [B,T].

    Negative inside an object, below the ground or outside a room. Exact for boxes, rooms, grounds
    and cylinders of circular section; for ellipsoids and cones a lower bound in size (zero exactly
    at the surface). ``times`` [B,T] seconds place the movers.
    """
    local = rigid_inverse(object_poses(worlds, times))
    at = points.to(torch.float64)[:, :, None]
    own = (local[..., :3] * at[..., None, :]).sum(-1) + local[..., 3]
    own = own.to(torch.float32)
    half = worlds.half[:, None]
    shape = worlds.shape[:, None]
    outside = own.abs() - half
    box = outside.clamp(min=0).norm(dim=-1) + outside.amax(-1).clamp(max=0)
    room = (-outside).amin(-1)
    unit = own / half
    least = half.amin(-1)
    sphere = (unit.norm(dim=-1) - 1) * least
    radial = (unit[..., ::2].norm(dim=-1) - 1) * half[..., ::2].amin(-1)
    upright = outside[..., 1]
    cylinder = torch.maximum(radial, upright).clamp(max=0) + torch.sqrt(
        radial.clamp(min=0) ** 2 + upright.clamp(min=0) ** 2
    )
    slope = (unit[..., ::2].norm(dim=-1) - 0.5 * (1 + unit[..., 1])) * least * 0.89
    cone = torch.maximum(slope, upright)
    distance = torch.where(shape == ROOM, room, box)
    distance = torch.where(shape == PLANE, -own[..., 1], distance)
    distance = torch.where(shape == SPHERE, sphere, distance)
    distance = torch.where(shape == CYLINDER, cylinder, distance)
    distance = torch.where(shape == CONE, cone, distance)
    return torch.where(shape < 0, torch.inf, distance).amin(-1)
