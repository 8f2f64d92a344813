"""Scenes whose depth is known in closed form from every camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flythrough.geometry.types import Geometry, ScaleKind

SIZE = (60, 96)
FOCAL = 80.0
BALL = (torch.tensor([0.1, -0.05, 2.0]), 0.4)
WALL = (torch.tensor([0.25, 0.1, -1.0]), -4.0)
"""Points X with normal . X = offset."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a camera sees: z-``depth`` [H,W], ``points`` [H,W,3] in the world, ``rgb`` [3,H,W]."""

    depth: Tensor
    points: Tensor
    rgb: Tensor


def intrinsics(size: tuple[int, int] = SIZE, focal: float = FOCAL) -> Tensor:
    return torch.tensor([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])


def camera(x: float = 0, y: float = 0, z: float = 0, yaw: float = 0) -> Tensor:
    pose = torch.eye(4)
    angle = torch.tensor(yaw)
    pose[0, 0] = pose[2, 2] = angle.cos()
    pose[0, 2], pose[2, 0] = angle.sin(), -angle.sin()
    pose[:3, 3] = torch.tensor([x, y, z])
    return pose


def look(pose: Tensor, *, ball: bool, size: tuple[int, int] = SIZE) -> Seen:
    """A slanted wall, with a ball in front of it if ``ball``."""
    rows, columns = torch.meshgrid(
        torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij"
    )
    pixels = torch.stack((columns, rows, torch.ones_like(rows)), dim=-1)
    rays = pixels @ torch.linalg.inv(intrinsics(size)).T @ pose[:3, :3].T
    origin = pose[:3, 3]
    normal, offset = WALL
    depth = (offset - normal @ origin) / (rays @ normal)
    if ball:
        depth = torch.minimum(depth, _ball_depth(origin, rays))
    points = origin + depth[..., None] * rays
    return Seen(depth, points, colour(points))


def _ball_depth(origin: Tensor, rays: Tensor) -> Tensor:
    centre, radius = BALL
    a = rays.square().sum(-1)
    b = rays @ (origin - centre)
    c = (origin - centre).square().sum() - radius**2
    found = (b * b - a * c).clamp_min(0).sqrt()
    return torch.where(b * b > a * c, (-b - found) / a, torch.inf)


def colour(points: Tensor) -> Tensor:
    """A smooth colour [3,H,W] of every world point."""
    waves = torch.stack(
        (torch.sin(2 * points[..., 0]), torch.cos(3 * points[..., 1]), torch.sin(points[..., 2]))
    )
    return 0.5 + 0.4 * waves


def hidden_from(points: Tensor, origin: Tensor) -> Tensor:
    """Which world points [H,W,3] the ball hides from ``origin``."""
    rays = points - origin
    return _ball_depth(origin, rays) < 1 - 1e-3


def geometry(seen: Seen, pose: Tensor) -> Geometry:
    depth = seen.depth[None]
    return Geometry(
        depth=depth,
        confidence=torch.ones_like(depth),
        valid=torch.ones_like(depth, dtype=torch.bool),
        intrinsics=intrinsics((depth.shape[1], depth.shape[2]))[None],
        world_from_camera=pose[None],
        scale=ScaleKind.METRIC,
    )
