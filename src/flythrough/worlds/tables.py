"""What the ray caster needs per frame and primitive, computed once in float64, kept in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.worlds.motion import compose, object_poses, product, rigid_inverse
from flythrough.worlds.world import NEAR, PLANE, PRIMITIVES, ROOM, WorldBatch

_CORNERS = torch.tensor(
    [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)], dtype=torch.float64
)
_EDGES = [
    (0, 1),
    (2, 3),
    (4, 5),
    (6, 7),
    (0, 2),
    (1, 3),
    (4, 6),
    (5, 7),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
]


@dataclass(frozen=True, eq=False)
class FrameTables:
    """F = B * T frames, K primitives.

    ``direction`` [F,K,3,3] float32 maps (u, v, 1) pixels to a local ray direction with camera z
    of 1; ``origin`` [F,K,3] the camera centre in local coordinates; ``normal`` [F,K,3,3] local
    gradients to world normals; ``bounds`` [F,K,4] (left, top, right, bottom) pixels that contain
    the primitive (right < left: out of sight); ``ray`` [F,3,3] pixels to world direction;
    ``centre`` [F,3] camera position; ``pixel_angle`` [F] metres covered by a pixel at depth 1;
    ``shape`` [F,K]; ``world`` [F] index of the world.
    """

    direction: Tensor
    origin: Tensor
    normal: Tensor
    bounds: Tensor
    ray: Tensor
    centre: Tensor
    pixel_angle: Tensor
    shape: Tensor
    world: Tensor
    shapes_present: tuple[int, ...]
    size: tuple[int, int]

    @property
    def frames(self) -> int:
        return int(self.world.shape[0])


def inverse_intrinsics(intrinsics: Tensor) -> Tensor:
    """Inverse of [...,3,3] pinhole matrices (skew allowed), float64."""
    k = intrinsics.to(torch.float64)
    fx, skew, cx = k[..., 0, 0], k[..., 0, 1], k[..., 0, 2]
    fy, cy = k[..., 1, 1], k[..., 1, 2]
    zero = torch.zeros_like(fx)
    rows = (
        1 / fx, -skew / (fx * fy), (skew * cy / fy - cx) / fx,
        zero, 1 / fy, -cy / fy,
        zero, zero, zero + 1,
    )  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def _bounds(
    camera_from_local: Tensor, intrinsics: Tensor, endless: Tensor, size: tuple[int, int]
) -> Tensor:
    """Pixel rectangles of the boxes [-1,1]^3, clipped at the near plane, one pixel to spare."""
    corners = _CORNERS.to(camera_from_local.device)
    points = product(camera_from_local[..., :3], corners.T) + camera_from_local[..., 3:]
    points = points.transpose(-1, -2)  # [F,K,8,3]
    a = points[..., [e[0] for e in _EDGES], :]
    b = points[..., [e[1] for e in _EDGES], :]
    near = NEAR * 0.9
    span = b[..., 2] - a[..., 2]
    part = (near - a[..., 2]) / torch.where(span.abs() < 1e-12, 1e-12, span)
    cut = a + part.clamp(0, 1)[..., None] * (b - a)
    crosses = (a[..., 2] < near) != (b[..., 2] < near)
    every = torch.cat((points, cut), -2)
    counts = torch.cat((points[..., 2] >= near, crosses), -1)
    z = every[..., 2].clamp(min=near)
    k = intrinsics.to(torch.float64)[:, None, None]
    u = (k[..., 0, 0] * every[..., 0] + k[..., 0, 1] * every[..., 1]) / z + k[..., 0, 2]
    v = k[..., 1, 1] * every[..., 1] / z + k[..., 1, 2]
    left = torch.where(counts, u, torch.inf).amin(-1) - 1
    right = torch.where(counts, u, -torch.inf).amax(-1) + 1
    top = torch.where(counts, v, torch.inf).amin(-1) - 1
    bottom = torch.where(counts, v, -torch.inf).amax(-1) + 1
    full = torch.tensor((0.0, 0.0, size[1], size[0]), dtype=torch.float64, device=left.device)
    found = torch.stack((left, top, right, bottom), -1)
    return torch.where(endless[..., None], full, found).to(torch.float32)


def frame_tables(
    worlds: WorldBatch,
    world_from_camera: Tensor,
    intrinsics: Tensor,
    times: Tensor,
    size: tuple[int, int],
) -> FrameTables:
    """Tables for cameras [B,T,4,4], intrinsics [B,T,3,3] and times [B,T] on the worlds' device."""
    count, frames = times.shape
    total = count * frames
    world_from_local = object_poses(worlds, times).reshape(total, PRIMITIVES, 3, 4)
    half = worlds.half.to(torch.float64)[:, None].expand(-1, frames, -1, -1)
    half = half.reshape(total, PRIMITIVES, 3)
    camera = world_from_camera.to(torch.float64)[..., :3, :].reshape(total, 1, 3, 4)
    shape = worlds.shape[:, None].expand(-1, frames, -1).reshape(total, PRIMITIVES)
    scaled = torch.cat(
        (world_from_local[..., :3] * half[..., None, :], world_from_local[..., 3:]), -1
    )
    camera_from_local = compose(rigid_inverse(camera), scaled)
    local_from_camera = compose(rigid_inverse(world_from_local), camera) / half[..., None]
    unproject = inverse_intrinsics(intrinsics).reshape(total, 1, 3, 3)
    endless = (shape == PLANE) | (shape == ROOM)
    flat_k = intrinsics.reshape(total, 3, 3)
    bounds = _bounds(camera_from_local, flat_k, endless, size)
    bounds[..., 2] = torch.where(shape < 0, -torch.inf, bounds[..., 2])
    normal = world_from_local[..., :3] / half[..., None, :]
    focal = flat_k[:, 0, 0].to(torch.float32)
    index = torch.arange(count, device=times.device)[:, None].expand(-1, frames).reshape(total)
    return FrameTables(
        direction=product(local_from_camera[..., :3], unproject).to(torch.float32),
        origin=local_from_camera[..., 3].to(torch.float32).contiguous(),
        normal=normal.to(torch.float32),
        bounds=bounds,
        ray=product(camera[..., :3], unproject)[:, 0].to(torch.float32),
        centre=camera[:, 0, :, 3].to(torch.float32),
        pixel_angle=1 / focal,
        shape=shape,
        world=index,
        shapes_present=worlds.shapes_present,
        size=size,
    )
