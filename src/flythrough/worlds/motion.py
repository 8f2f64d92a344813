"""Rigid poses as [...,3,4] blocks and the exact motion of movers.

Products are written out term by term: the order of additions is then the same whatever the batch
size, so a world renders to the same bits alone and in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flythrough.worlds.world import (
    PHASE,
    PIVOT,
    RATE,
    SPIN,
    SWING_COS,
    SWING_SIN,
    VELOCITY,
    WorldBatch,
)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product [...,n,3] x [...,3,m] over broadcast leading axes, in a fixed order."""
    total = a[..., :, 0:1] * b[..., 0:1, :]
    total = total + a[..., :, 1:2] * b[..., 1:2, :]
    return total + a[..., :, 2:3] * b[..., 2:3, :]


def compose(a: Tensor, b: Tensor) -> Tensor:
    """Affine product of [...,3,4] blocks: first ``b``, then ``a``."""
    linear = product(a[..., :3], b[..., :3])
    shift = product(a[..., :3], b[..., 3:]) + a[..., 3:]
    return torch.cat((linear, shift), -1)


def rigid_inverse(pose: Tensor) -> Tensor:
    """Inverse of rigid [...,3,4] blocks."""
    turned = pose[..., :3].transpose(-1, -2)
    return torch.cat((turned, -product(turned, pose[..., 3:])), -1)


def mover_poses(worlds: WorldBatch, times: Tensor) -> Tensor:
    """World-from-rest pose of every mover, [B,T,MOVERS,3,4] float64, at ``times`` [B,T] seconds.

    A mover translates by ``velocity t`` plus an elliptic swing and turns about the vertical
    through its (moving) pivot; at t = 0 every mover is at rest position.
    """
    table = worlds.movers[:, None]
    t = times.to(torch.float64)[:, :, None, None]
    angle = table[..., RATE, None] * t[..., 0, None] + table[..., PHASE, None]
    phase = table[..., PHASE, None]
    shift = (
        table[..., VELOCITY] * t
        + table[..., SWING_SIN] * (torch.sin(angle) - torch.sin(phase))
        + table[..., SWING_COS] * (torch.cos(angle) - torch.cos(phase))
    )
    spin = table[..., SPIN] * t[..., 0]
    cos, sin, zero = torch.cos(spin), torch.sin(spin), torch.zeros_like(spin)
    rows = (cos, zero, sin, zero, zero + 1, zero, -sin, zero, cos)
    turn = torch.stack(rows, -1).unflatten(-1, (3, 3))
    pivot = table[..., PIVOT].expand_as(shift)[..., None]
    return torch.cat((turn, pivot + shift[..., None] - product(turn, pivot)), -1)


def object_poses(worlds: WorldBatch, times: Tensor) -> Tensor:
    """World-from-object of every primitive at ``times`` [B,T]: [B,T,K,3,4] float64."""
    rest = worlds.pose[:, None].expand(-1, times.shape[1], -1, -1, -1)
    moved = mover_poses(worlds, times)
    which = worlds.mover.clamp(min=0)[:, None, :, None, None]
    own = torch.gather(moved, 2, which.expand(-1, times.shape[1], -1, 3, 4))
    moving = (worlds.mover >= 0)[:, None, :, None, None]
    return torch.where(moving, compose(own, rest), rest)


def rest_to_time(worlds: WorldBatch, times: Tensor) -> Tensor:
    """World-from-rest motion of every primitive, [B,T,K,3,4] float64 (identity where still)."""
    moved = mover_poses(worlds, times)
    which = worlds.mover.clamp(min=0)[:, None, :, None, None]
    own = torch.gather(moved, 2, which.expand(-1, times.shape[1], -1, 3, 4))
    still = torch.eye(3, 4, dtype=torch.float64, device=own.device)
    return torch.where((worlds.mover >= 0)[:, None, :, None, None], own, still)
